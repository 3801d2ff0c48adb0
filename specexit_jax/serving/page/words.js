// Numbers and names as people read them.

export const whole = (number) => Math.round(number).toLocaleString("en");
export const percent = (share, digits = 3) => `${Number((100 * share).toPrecision(digits))} %`;
export const seconds = (number) => `${number < 10 ? number.toPrecision(2) : whole(number)} s`;
export const spaced = (name) => name.replaceAll("_", " ");

export function tokens(number) {
  return `${whole(number)} ${Math.round(number) === 1 ? "token" : "tokens"}`;
}

// A signal's value on its own scale: shares with three digits, tokens without any.
export function reading(signal, value) {
  return signal.full > 1 ? whole(value) : value.toFixed(3);
}

export function limit(signal, threshold) {
  return `${signal.at_least ? "≥" : "≤"} ${reading(signal, threshold)}`;
}

// Of several signals, "name value" each.
export function readings(signals, values, told = reading) {
  return Object.entries(values).map(([name, value]) => `${spaced(name)} ${told(signals[name], value)}`);
}
