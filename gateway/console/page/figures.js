// The key figures: what each is, how it is worked out, and the box that shows it.

import { h } from "./dom.js";
import { bytes, count, line, percent, rate, time } from "./numbers.js";
import { Plot } from "./plot.js";
import { answered, quantile, responses } from "./rates.js";

/**
 * @typedef {object} Shown
 * @property {import("./numbers.js").Figure} main
 * @property {[string, string][]} rest names and figures below it
 * @property {(number | null)[]} plot
 * @property {string} [kind] `warn` or `bad` when it is no good
 */

/** @typedef {import("./rates.js").Snapshots} Snapshots */

/** @type {{id: string, name: string, main: string, kinds: string[], show: (of: Snapshots) => Shown}[]} */
const FIGURES = [
  { id: "requests", name: "Requests", main: "/s", kinds: ["accent"], show: requests },
  { id: "errors", name: "Errors", main: "5xx /s", kinds: ["bad", "warn"], show: errors },
  { id: "whole", name: "Latency, whole", main: "p95", kinds: ["accent", "muted"], show: (of) => latency(of, "whole") },
  { id: "upstream", name: "Latency, upstream", main: "p95", kinds: ["accent", "muted"], show: (of) => latency(of, "upstream") },
  { id: "own", name: "Own share", main: "p95", kinds: ["accent", "muted"], show: (of) => latency(of, "own") },
  { id: "in_flight", name: "In flight", main: "", kinds: ["accent", "warn"], show: inFlight },
  { id: "bytes", name: "Bytes out", main: "/s", kinds: ["accent", "muted"], show: traffic },
  { id: "connections", name: "Connections", main: "clients", kinds: ["accent", "muted"], show: connections },
  { id: "lag", name: "Event loop lag", main: "p99", kinds: ["accent"], show: lag },
  { id: "memory", name: "Memory", main: "", kinds: ["accent"], show: memory },
];

/** @param {Snapshots} of */
function requests(of) {
  const now = of.rate(answered);
  return { main: rate(now), rest: [["since start", line(count(answered(of.newest)))], ["retries", perSecond(of, "retries")]], plot: [now] };
}

/** @param {Snapshots} of */
function errors(of) {
  const by = (statusClass, source) => of.rate((one) => responses(one, statusClass, source));
  const bad = by("5xx");
  const theirs = by("4xx");
  return {
    main: rate(bad),
    rest: [["gateway", line(rate(by("5xx", "gateway")))], ["services", line(rate(by("5xx", "service")))], ["4xx", line(rate(theirs))]],
    plot: [bad, theirs],
    kind: bad ? "bad" : undefined,
  };
}

/** @param {Snapshots} of @param {string} name */
function latency(of, name) {
  const bounds = of.newest.bounds;
  const counts = of.buckets((one) => one.histograms[name]);
  const [p50, p95, p99] = [0.5, 0.95, 0.99].map((part) => quantile(counts, bounds, part));
  return { main: time(p95, bounds), rest: [["p50", line(time(p50, bounds))], ["p99", line(time(p99, bounds))]], plot: [p95, p50] };
}

/** @param {Snapshots} of */
function inFlight(of) {
  const { in_flight: flying, waiting } = of.newest.gauges;
  const shed = of.rate((one) => Object.values(one.shed).reduce((sum, each) => sum + each, 0));
  return {
    main: count(flying),
    rest: [["waiting", line(count(waiting))], ["shed", `${line(rate(shed))}/s`]],
    plot: [flying, waiting],
    kind: shed ? "bad" : undefined,
  };
}

/** @param {Snapshots} of */
function traffic(of) {
  const out = of.rate((one) => one.counters.bytes_out);
  const into = of.rate((one) => one.counters.bytes_in);
  return { main: bytes(out), rest: [["in", `${line(bytes(into))}/s`]], plot: [out, into] };
}

/** @param {Snapshots} of */
function connections(of) {
  const { clients, connections: upstream, streams } = of.newest.gauges;
  return { main: count(clients), rest: [["services", line(count(upstream))], ["streams", line(count(streams))]], plot: [clients, upstream] };
}

/** @param {Snapshots} of */
function lag(of) {
  const bounds = of.newest.bounds;
  const counts = of.buckets((one) => one.histograms.lag);
  const [p50, p99] = [0.5, 0.99].map((part) => quantile(counts, bounds, part));
  return { main: time(p99, bounds), rest: [["p50", line(time(p50, bounds))]], plot: [p99], kind: p99 !== null && p99 > 0.1 ? "warn" : undefined };
}

/** @param {Snapshots} of */
function memory(of) {
  const { memory: used } = of.newest.gauges;
  const busy = of.rate((one) => one.counters.cpu_seconds);
  return { main: bytes(used), rest: [["CPU", line(percent(busy))]], plot: [used] };
}

/** @param {Snapshots} of @param {string} name */
function perSecond(of, name) {
  return `${line(rate(of.rate((one) => one.counters[name])))}/s`;
}

/** The boxes of all figures. */
export class Figures {
  /** @param {HTMLElement} place */
  constructor(place) {
    this.boxes = FIGURES.map((figure) => new Box(figure));
    place.append(...this.boxes.map((box) => box.element));
  }

  /** @param {Snapshots} of */
  show(of) {
    for (const box of this.boxes) box.show(of);
  }
}

class Box {
  /** @param {typeof FIGURES[number]} figure */
  constructor(figure) {
    this.figure = figure;
    this.value = h("span", { class: "value" }, "–");
    this.unit = h("span", { class: "unit" });
    this.rest = h("dl", { class: "rest" });
    this.plot = new Plot(figure.kinds);
    this.element = h(
      "div",
      { class: "figure", role: "group", "aria-labelledby": `figure-${figure.id}`, "data-figure": figure.id },
      h("h3", { id: `figure-${figure.id}` }, figure.name),
      h("p", { class: "reading" }, this.value, this.unit),
      this.plot.element,
      this.rest,
    );
    /** @type {HTMLElement[]} */
    this.parts = [];
  }

  /** @param {Snapshots} of */
  show(of) {
    const shown = this.figure.show(of);
    write(this.value, shown.main.text);
    write(this.unit, unitText(shown.main.unit ?? "", this.figure.main));
    this.element.dataset.kind = shown.kind ?? "";
    if (this.parts.length !== shown.rest.length) {
      this.parts = shown.rest.map(() => h("dd"));
      this.rest.replaceChildren(...this.parts.map((dd, at) => h("div", {}, h("dt", {}, shown.rest[at][0]), dd)));
    }
    shown.rest.forEach(([, text], at) => write(this.parts[at], text));
    this.plot.push(of.newest.clock, shown.plot);
  }
}

/** @param {string} unit @param {string} what */
function unitText(unit, what) {
  return what.startsWith("/") ? `${unit}${what}` : [unit, what].filter(Boolean).join(" ");
}

/**
 * Only what has changed: whoever marks text with the mouse keeps it.
 * @param {Element} element @param {string} text
 */
export function write(element, text) {
  if (element.textContent !== text) element.textContent = text;
}
