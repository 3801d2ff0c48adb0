// Elements of the page and shapes of its drawings. Texts become text, whatever they hold.

const SVG = "http://www.w3.org/2000/svg";

export const at = (id) => document.getElementById(id);

export function element(kind, name = "", words = "") {
  const made = document.createElement(kind);
  made.className = name;
  made.textContent = words;
  return made;
}

export function set(made, attributes) {
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  return made;
}

export function shape(kind, name, attributes) {
  return set(document.createElementNS(SVG, kind), { class: name, ...attributes });
}

export function label(words, name, attributes) {
  const made = shape("text", name, attributes);
  made.textContent = words;
  return made;
}

// Gives what is drawn of a signal its colour.
export function coloured(made, name, signal) {
  made.dataset.signal = name;
  made.style.setProperty("--signal", signal.colour);
  return made;
}
