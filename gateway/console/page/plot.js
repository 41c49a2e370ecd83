// Small plots of what a figure was in the last minutes: one or more lines, no axes.

import { isLate } from "./rates.js";

const SVG = "http://www.w3.org/2000/svg";
const WIDTH = 200;
const HEIGHT = 40;

/** Seconds that a plot shows at least, and at most. */
export const SHORTEST = 60;
export const LONGEST = 300;

/** Points of a line at most: one a second. */
const MAX_POINTS = LONGEST + 10;

/** Plots one figure. Those who cannot see it have its number. */
export class Plot {
  /** @param {string[]} kinds one word for each line: `accent`, `muted`, `warn`, `bad`. The first is filled below */
  constructor(kinds) {
    /** @type {{at: number, values: (number | null)[]}[]} */
    this.points = [];
    this.element = svg("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none", class: "plot", "aria-hidden": "true" });
    this.area = svg("path", { class: `area ${kinds[0]}` });
    this.lines = kinds.map((kind) => svg("path", { class: `line ${kind}` }));
    this.title = svg("title", {});
    this.element.append(this.title, this.area, ...[...this.lines].reverse());
  }

  /** The greatest value of all lines, where the top is. */
  get top() {
    let top = 0;
    for (const { values } of this.points) for (const value of values) if (value !== null && value > top) top = value;
    return top;
  }

  /** What whoever points at it is told. @param {string} text */
  tell(text) {
    if (this.title.textContent !== text) this.title.textContent = text;
  }

  /**
   * @param {number} at seconds
   * @param {(number | null)[]} values one for each line; null leaves a gap
   */
  push(at, values) {
    while (this.points.length > 0 && isLate(this.points[this.points.length - 1].at - at)) this.points.pop(); // as `Snapshots`
    if (at < (this.points.at(-1)?.at ?? at)) this.points = []; // another clock: another machine answers
    this.points.push({ at, values: values.map((one) => (one === Infinity ? null : one)) });
    while (this.points.length > MAX_POINTS || this.points[0].at < at - LONGEST) this.points.shift();
    this.draw();
  }

  draw() {
    const { points } = this;
    const end = points[points.length - 1].at;
    const span = Math.min(LONGEST, Math.max(SHORTEST, end - points[0].at));
    const { top } = this;
    const place = (point, line) => {
      const value = point.values[line];
      if (value === null) return null;
      const x = WIDTH * (1 - (end - point.at) / span);
      const y = top === 0 ? HEIGHT - 1.5 : HEIGHT - 1.5 - (HEIGHT - 4) * (value / top);
      return [x.toFixed(1), y.toFixed(1)];
    };
    this.lines.forEach((path, line) => path.setAttribute("d", drawn(runs(points, line, place), false)));
    this.area.setAttribute("d", drawn(runs(points, 0, place), true));
  }
}

/** Pieces of a line without gaps. A pause of several seconds is a gap, too. */
function runs(points, line, place) {
  const found = [];
  let run = [];
  let before = -Infinity;
  for (const point of points) {
    const where = place(point, line);
    if (where === null || point.at - before > 6) {
      if (run.length > 0) found.push(run);
      run = [];
    }
    if (where !== null) run.push(where);
    before = point.at;
  }
  if (run.length > 0) found.push(run);
  return found;
}

function drawn(pieces, filled) {
  return pieces
    .map((piece) => {
      const path = `M${piece.map((one) => one.join(" ")).join("L")}`;
      if (!filled) return piece.length === 1 ? `${path}h0.1` : path;
      return `${path}L${piece[piece.length - 1][0]} ${HEIGHT}L${piece[0][0]} ${HEIGHT}Z`;
    })
    .join("");
}

function svg(tag, attributes) {
  const element = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  return element;
}
