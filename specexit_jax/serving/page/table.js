// The readings of the signals as a table.
import { element } from "./elements.js";
import { reading, spaced, whole } from "./words.js";

export function fill(table, signals, points) {
  const names = Object.keys(signals), head = element("tr");
  head.append(...["token", ...names].map((name) => heading(spaced(name), "col")));
  const rows = points.map(({ token, values }) => {
    const row = element("tr"), cells = names.map((name) => element("td", "", reading(signals[name], values[name])));
    row.append(heading(whole(token), "row"), ...cells);
    return row;
  });
  table.replaceChildren(head, ...rows);
}

function heading(words, scope) {
  const made = element("th", "", words);
  made.scope = scope;
  return made;
}
