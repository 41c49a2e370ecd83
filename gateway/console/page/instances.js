// The table of instances: those that are out come first, and those that have just gone are not
// forgotten at once.

import { announce } from "./dom.js";
import { NONE, count, line } from "./numbers.js";
import { Table } from "./table.js";
import { counted, durationText } from "./text.js";

/** Seconds for which an instance that is not announced any more stays in the table. */
const REMEMBERED = 60;

/** Of those that have gone. */
const MAX_GONE = 20;

const WORDS = { out: "out", warming: "warming up", up: "up", leaving: "leaving", idle: "not used yet", gone: "gone" };

export class Instances {
  /** @param {HTMLElement} card */
  constructor(card) {
    this.table = new Table(card, {
      title: "Instances",
      empty: "No service is announced.",
      key: (row) => `${row.fingerprint} ${row.identity}`,
      kind: (row) => row.state,
      columns: [
        { label: "State", cell: (row) => ({ text: stateText(row), kind: row.state }) },
        { label: "Since", style: "since", cell: (row) => since(row) },
        { label: "Service", style: "name", cell: (row) => ({ text: row.service, title: row.identity }) },
        { label: "Address", style: "mono address", cell: (row) => ({ text: row.address, title: row.address }) },
        { label: "In flight", style: "number", cell: (row) => number(row.in_flight) },
        { label: "Waiting", style: "number", cell: (row) => number(row.waiting) },
        { label: "Connections", style: "number", cell: (row) => number(row.connections) },
        { label: "Weight", style: "number", cell: (row) => weight(row) },
        { label: "Last error", style: "wide", cell: (row) => ({ text: row.last_error ?? "", title: row.last_error ?? "" }) },
      ],
    });
    /** @type {Map<string, any>} what was shown last */
    this.last = new Map();
    /** @type {Map<string, {row: any, at: number}>} */
    this.gone = new Map();
    this.filter = "";
    /** @type {Set<string> | null} */
    this.out = null;
  }

  /**
   * @param {any} overview
   * @param {string} filter what it was asked for with
   */
  show(overview, filter) {
    const { shown, more, total, states, found } = overview.instances;
    this.remember(overview, filter);
    const gone = [...this.gone.values()].map(({ row, at }) => ({ ...row, state: "gone", seconds: overview.clock - at, last_error: "no longer announced" }));
    const out = shown.filter((row) => row.state === "out");
    const rest = shown.filter((row) => row.state !== "out");
    this.table.show([...out, ...gone, ...rest], {
      more,
      summary: summary(total, states, filter === "" ? null : found),
      empty: filter === "" ? undefined : "None matches the filter.",
    });
    this.tell(out);
  }

  /** Who was there and is not any more. What a filter or the limit hides has not gone. */
  remember(overview, filter) {
    const { shown, more } = overview.instances;
    const now = new Map(shown.map((row) => [`${row.fingerprint} ${row.identity}`, row]));
    if (filter !== this.filter || more > 0) {
      this.gone.clear();
    } else {
      for (const [key, row] of this.last) {
        if (!now.has(key) && this.gone.size < MAX_GONE) this.gone.set(key, { row, at: overview.clock });
      }
    }
    for (const [key, { at }] of this.gone) {
      if (now.has(key) || overview.clock - at > REMEMBERED || overview.clock < at) this.gone.delete(key);
    }
    this.last = now;
    this.filter = filter;
  }

  /** Those who do not see the page hear of changes, and not of every number. */
  tell(out) {
    const names = new Set(out.map((row) => row.identity));
    if (this.out !== null) {
      const fresh = out.filter((row) => !this.out.has(row.identity)).map((row) => `${row.service} at ${row.address}`);
      if (fresh.length > 3) announce(`${fresh.length} instances are out`);
      else if (fresh.length > 0) announce(`Out: ${fresh.join(", ")}`);
      else if (names.size === 0 && this.out.size > 0) announce("No instance is out any more");
    }
    this.out = names;
  }
}

function stateText(row) {
  const word = WORDS[row.state] ?? row.state;
  return row.state === "out" && row.out < row.workers ? `${word} for ${row.out} of ${row.workers} workers` : word;
}

function since(row) {
  if (row.seconds === undefined) return NONE;
  const text = durationText(row.seconds);
  if (row.state !== "out" || row.retry_in === null) return text;
  return { text: `${text}, next try ${row.retry_in < 1 ? "now" : `in ${durationText(row.retry_in)}`}`,
    title: `${counted(row.failures, "pause")} since it last answered` };
}

function number(value) {
  return value === undefined ? NONE : line(count(value));
}

function weight(row) {
  const own = String(Math.round(row.weight * 100) / 100);
  return row.state === "warming" ? `${own} × ${Math.round(row.share * 100)} %` : own;
}

function summary(total, states, found) {
  const parts = ["out", "warming", "leaving", "idle"].filter((state) => states[state] > 0).map((state) => `${states[state]} ${WORDS[state]}`);
  const all = found === null ? counted(total, "instance") : `${found} of ${counted(total, "instance")}`;
  return [all, ...parts].join(" · ");
}
