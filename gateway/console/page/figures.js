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

/** @typedef {{id: string, name: string, about: string, main: string, kinds: string[], second?: string, format: (value: number, bounds: number[]) => import("./numbers.js").Figure, show: (of: Snapshots) => Shown}} Kind */

/** `second` is the name in `rest` of what the second line is. */
const TIMES = { main: "p95", kinds: ["accent", "muted"], second: "p50", format: time };

/** @type {Kind[]} */
const FIGURES = [
  { id: "requests", name: "Requests", about: "Answered in a second, whatever with", main: "/s", kinds: ["accent"], format: rate, show: requests },
  { id: "errors", name: "Errors", about: "Answers with 5xx in a second, and whose they are", main: "5xx /s", kinds: ["bad", "warn"], second: "4xx", format: rate, show: errors },
  { id: "whole", name: "Latency, whole", about: "From a request's head to the last byte of its answer", ...TIMES, show: (of) => latency(of, "whole") },
  { id: "upstream", name: "Latency, upstream", about: "From handing a request to a service to the first byte of the reply", ...TIMES, show: (of) => latency(of, "upstream") },
  { id: "own", name: "Own share", about: "What is left of the whole: the gateway's own work", ...TIMES, show: (of) => latency(of, "own") },
  { id: "in_flight", name: "In flight", about: "Requests under way; those that wait for a connection to a service; those refused because of a limit", main: "", kinds: ["accent", "warn"], second: "waiting", format: count, show: inFlight },
  { id: "bytes", name: "Bytes out", about: "Bodies of answers; in: of requests", main: "/s", kinds: ["accent", "muted"], second: "in", format: bytes, show: traffic },
  { id: "connections", name: "Connections", about: "Of clients; to services; event streams", main: "clients", kinds: ["accent", "muted"], second: "services", format: count, show: connections },
  { id: "lag", name: "Event loop lag", about: "How late timers run: the more, the busier the process", main: "p99", kinds: ["accent"], format: time, show: lag },
  { id: "memory", name: "Memory", about: "Resident, of all workers; CPU: as a part of one core", main: "", kinds: ["accent"], format: bytes, show: memory },
];

/** How the second line looks, in words. */
const COLOURS = { muted: "grey", warn: "orange" };

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
  /** @param {Kind} figure */
  constructor(figure) {
    this.figure = figure;
    this.value = h("span", { class: "value" }, "–");
    this.unit = h("span", { class: "unit" });
    this.rest = h("dl", { class: "rest" });
    this.plot = new Plot(figure.kinds);
    this.element = h(
      "div",
      { class: "figure", role: "group", "aria-labelledby": `figure-${figure.id}`, "data-figure": figure.id },
      h("h3", { id: `figure-${figure.id}`, title: figure.about }, figure.name),
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
      this.rest.replaceChildren(...this.parts.map((dd, at) => h("div", {}, this.term(shown.rest[at][0]), dd)));
    }
    shown.rest.forEach(([, text], at) => write(this.parts[at], text));
    this.plot.push(of.newest.clock, shown.plot);
    this.plot.tell(this.legend(of.newest.bounds));
  }

  /** The one that is plotted, too, has a piece of its line. @param {string} name */
  term(name) {
    return h("dt", { "data-line": name === this.figure.second && this.figure.kinds[1] }, name);
  }

  /** @param {number[]} bounds */
  legend(bounds) {
    const { name, main, kinds, second, format } = this.figure;
    const unit = main.endsWith("/s") ? "/s" : "";
    const first = `${name}${main === "" || main.startsWith("/") ? "" : ` (${main.replace(" /s", "")})`}`;
    const other = second === undefined ? "" : `; ${COLOURS[kinds[1]]}: ${second}`;
    return `${first}${other}. The last 5 minutes at most; the top is ${line(format(this.plot.top, bounds))}${unit}`;
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
