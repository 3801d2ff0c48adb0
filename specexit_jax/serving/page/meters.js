// A meter for each signal. The first three are large, and so are those that have a threshold.
import { coloured, element, set, shape } from "./elements.js";
import { limit, reading, spaced } from "./words.js";

const LARGE = 3;
const DASHES = ["none", "9 4", "3 3", "12 3 3 3", "2 6", "16 6"]; // lines differ by more than their colours

export const dashes = (place) => DASHES[place % DASHES.length];

// Where a value lies on the full scale of its signal, from 0 to 1.
export function share(signal, value) {
  return Math.min(Math.max(value / signal.full, 0), 1);
}

export class Meters {
  constructor(box, signals, thresholds) {
    this.all = Object.entries(signals).map(([name, signal], place) => new Meter(name, signal, place, thresholds[name]));
    box.append(...this.all.map((meter) => meter.box));
  }

  show(values) {
    for (const meter of this.all) meter.show(values[meter.name]);
  }
}

class Meter {
  constructor(name, signal, place, threshold) {
    Object.assign(this, { name, signal, threshold });
    const large = place < LARGE || threshold !== undefined;
    this.box = coloured(element("div", large ? "meter" : "meter small"), name, signal);
    this.value = element("span", "value", "–");
    this.fill = element("div", "fill");
    this.scale = element("div", "scale");
    const line = element("div", "name"), meaning = element("div", "meaning note", signal.meaning);
    line.append(swatch(place), element("span", "", spaced(name)), this.value);
    this.scale.append(this.fill);
    if (threshold !== undefined) {
      const mark = element("div", "limit");
      mark.style.left = `${100 * share(signal, threshold)}%`;
      this.scale.append(mark);
      meaning.textContent += `; exits where ${limit(signal, threshold)}`;
    }
    set(this.scale, { role: "meter", title: signal.meaning, "aria-label": spaced(name), "aria-description": meaning.textContent });
    set(this.scale, { "aria-valuemin": 0, "aria-valuemax": signal.full, "aria-valuenow": 0, "aria-valuetext": "not read yet" });
    this.box.append(line, this.scale, meaning);
  }

  show(value) {
    const { signal, threshold } = this;
    const passes = signal.at_least ? value >= threshold : value <= threshold;
    const told = threshold === undefined ? "" : `, ${passes ? "passes" : "does not pass"} ${limit(signal, threshold)}`;
    this.value.textContent = `${reading(signal, value)}${passes ? " ✓" : ""}`;
    this.fill.style.width = `${100 * share(signal, value)}%`;
    const within = Math.min(Math.max(value, 0), signal.full);
    set(this.scale, { "aria-valuenow": within, "aria-valuetext": reading(signal, value) + told });
  }
}

// The line that the chart draws for a signal.
function swatch(place) {
  const box = shape("svg", "swatch", { viewBox: "0 0 32 12", "aria-hidden": "true" });
  box.append(shape("path", "", { d: "M0 6h32", "stroke-dasharray": dashes(place) }));
  return box;
}
