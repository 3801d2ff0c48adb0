// A line of each signal over the tokens of thinking, with thresholds, boundaries and the exit; the same in words.
import { coloured, label, set, shape } from "./elements.js";
import { dashes, share } from "./meters.js";
import { limit, readings, spaced, whole } from "./words.js";

const LEFT = 24, RIGHT = 8, TOP = 20, BOTTOM = 34, LABEL = 15; // pixels
const SHORTEST = 48; // tokens that the axis has at least
const FEW = 48; // readings that have a dot each

export class Chart {
  // points: {token, values}. boundaries: tokens. exit: a token, or null.
  constructor(figure, signals, thresholds, kinds) {
    Object.assign(this, { signals, thresholds, points: [], boundaries: [], exit: null });
    this.svg = figure.querySelector("svg");
    const dotted = Object.keys(thresholds).length ? " Dotted lines are thresholds, with the side that passes shaded." : "";
    const upright = `Upright lines are boundaries (${kinds.map(spaced).join(", ")}), where it may exit.`;
    figure.querySelector("figcaption").textContent = `Each signal as a share of its full scale.${dotted} ${upright}`;
    new ResizeObserver(() => this.draw()).observe(this.svg);
  }

  add(token, values) {
    if (this.points.at(-1)?.token === token) this.points.pop();
    this.points.push({ token, values });
  }

  draw() {
    const width = this.svg.clientWidth, height = this.svg.clientHeight;
    if (!width) return;
    const last = Math.max(SHORTEST, this.exit ?? 0, this.points.at(-1)?.token ?? 0);
    const x = (token) => LEFT + ((width - LEFT - RIGHT) * token) / last;
    const y = (part) => TOP + (height - TOP - BOTTOM) * (1 - part);
    const upright = (token) => shape("line", "boundary", { x1: x(token), x2: x(token), y1: y(0), y2: y(1) });
    set(this.svg, { viewBox: `0 0 ${width} ${height}`, "aria-label": this.summary() });
    this.svg.replaceChildren(
      ...this.limits(x(0), x(last), y),
      ...axes(x, y, last),
      ...this.boundaries.map(upright),
      ...Object.keys(this.signals).flatMap((name, place) => this.line(name, place, x, y)),
      ...this.names(x(0), y),
      ...(this.exit === null ? [] : exit(this.exit, x, y, width)),
    );
  }

  line(name, place, x, y) {
    const signal = this.signals[name];
    const places = this.points.map(({ token, values }) => [x(token).toFixed(1), y(share(signal, values[name])).toFixed(1)]);
    const dots = places.length > FEW ? [] : places.map(([cx, cy]) => shape("circle", "dot", { cx, cy, r: 3 }));
    const line = shape("polyline", "line", { points: places.join(" "), "stroke-dasharray": dashes(place) });
    return [line, ...dots].map((made) => coloured(made, name, signal));
  }

  limits(left, right, y) {
    return Object.entries(this.thresholds).flatMap(([name, threshold]) => {
      const signal = this.signals[name], level = y(share(signal, threshold)), edge = y(signal.at_least ? 1 : 0);
      const side = { x: left, width: right - left, y: Math.min(level, edge), height: Math.abs(level - edge) };
      const line = shape("line", "threshold", { x1: left, x2: right, y1: level, y2: level });
      return [shape("rect", "passing", side), line].map((made) => coloured(made, name, signal));
    });
  }

  // Of the thresholds: beside their lines, towards the middle, and none over another.
  names(left, y) {
    const taken = [];
    return Object.entries(this.thresholds).map(([name, threshold]) => {
      const signal = this.signals[name], level = y(share(signal, threshold)), inwards = level > y(0.5) ? -LABEL : LABEL;
      let place = level + (inwards < 0 ? -4 : LABEL - 2);
      while (taken.some((other) => Math.abs(other - place) < LABEL)) place += inwards;
      taken.push(place);
      return label(`${spaced(name)} ${limit(signal, threshold)}`, "limit", { x: left + 4, y: place });
    });
  }

  summary() {
    const last = this.points.at(-1);
    const begin = "Signals over the tokens of thinking";
    if (!last) return `${begin}: none read yet.`;
    const limits = readings(this.signals, this.thresholds, limit).join(", ") || "none";
    const end = this.exit === null ? "" : ` Exit at token ${whole(this.exit)}.`;
    const values = readings(this.signals, last.values).join(", "), boundaries = whole(this.boundaries.length);
    return `${begin}. At token ${whole(last.token)}: ${values}. Thresholds: ${limits}. Boundaries: ${boundaries}.${end}`;
  }
}

function axes(x, y, last) {
  const rough = last / 5, unit = 10 ** Math.floor(Math.log10(rough));
  const step = unit * [1, 2, 5, 10].find((times) => times * unit >= rough);
  const found = [shape("line", "axis", { x1: x(0), x2: x(last), y1: y(0), y2: y(0) })];
  found.push(shape("line", "axis", { x1: x(0), x2: x(0), y1: y(0), y2: y(1) }));
  for (const [part, words] of [[0, "0"], [0.5, "½"], [1, "1"]]) {
    found.push(label(words, "", { x: x(0) - 6, y: y(part) + 4, "text-anchor": "end" }));
  }
  for (let token = 0; token <= last; token += step) {
    const anchor = token === 0 ? "start" : token + step / 4 > last ? "end" : "middle";
    found.push(shape("line", "axis", { x1: x(token), x2: x(token), y1: y(0), y2: y(0) + 4 }));
    found.push(label(whole(token), "", { x: x(token), y: y(0) + 16, "text-anchor": anchor }));
  }
  found.push(label("tokens of thinking", "", { x: x(last), y: y(0) + 30, "text-anchor": "end" }));
  return found;
}

function exit(token, x, y, width) {
  const place = x(token), late = place > width / 2;
  const told = { x: late ? place - 5 : place + 5, y: TOP - 6, "text-anchor": late ? "end" : "start" };
  return [
    shape("line", "exit", { x1: place, x2: place, y1: y(1) - 6, y2: y(0) }),
    label(`exit at ${whole(token)}`, "left", told),
  ];
}
