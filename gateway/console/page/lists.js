// The other tables: busiest actions, services, refused announcements, reloads.

import { NONE, ago, bytes, count, line, rate, time } from "./numbers.js";
import { QUANTILE_WINDOW, quantile } from "./rates.js";
import { Table } from "./table.js";
import { counted } from "./text.js";

/** Seconds after which actions are put in order anew: rows that jump cannot be read. */
const REORDER = 5;

const NO_MATCH = "None matches the filter.";
const SPECIAL = { _none: "(no action)", _other: "(all others)" };

export class Actions {
  /** @param {HTMLElement} card */
  constructor(card) {
    this.table = new Table(card, {
      title: "Busiest actions",
      empty: "No request yet.",
      key: (row) => row.action,
      columns: [
        { label: "Action", style: "name mono", cell: (row) => ({ text: SPECIAL[row.action] ?? row.action, title: row.action }) },
        { label: "Requests/s", style: "number", cell: (row) => line(rate(row.rate)) },
        { label: "4xx/s", style: "number", cell: (row) => ({ text: line(rate(row.bad)), kind: row.bad ? "warn" : "" }) },
        { label: "5xx/s", style: "number", cell: (row) => ({ text: line(rate(row.failed)), kind: row.failed ? "bad" : "" }) },
        { label: "p95", style: "number", cell: (row) => row.p95 },
        { label: "Bytes/s", style: "number", cell: (row) => line(bytes(row.bytes)) },
        { label: "Total", style: "number", cell: (row) => line(count(row.total)) },
      ],
    });
    /** @type {Map<string, number>} */
    this.order = new Map();
    this.ordered = -Infinity;
  }

  /** @param {import("./rates.js").Snapshots} of @param {string} filter */
  show(of, filter) {
    const { shown, more, total, found } = of.newest.actions;
    const rows = shown.map((row) => this.row(of, row));
    this.arrange(of.newest.clock, rows);
    const at = (row) => this.order.get(row.action) ?? Infinity;
    rows.sort((one, other) => at(one) - at(other));
    this.table.show(rows, {
      more,
      summary: `${filter === "" ? "" : `${found} of `}${counted(total, "action")} called · last ${QUANTILE_WINDOW} s`,
      empty: filter === "" ? undefined : NO_MATCH,
    });
  }

  row(of, row) {
    const pick = (snapshot) => snapshot.actions.shown.find((one) => one.action === row.action);
    const speed = (name) => of.rate((one) => pick(one)?.[name], QUANTILE_WINDOW);
    const { bounds } = of.newest;
    const before = of.before(QUANTILE_WINDOW);
    const counts = before !== null && pick(before) ? of.buckets((one) => pick(one)?.duration) : null;
    return {
      action: row.action,
      total: row.requests,
      rate: speed("requests"),
      bad: speed("4xx"),
      failed: speed("5xx"),
      bytes: speed("bytes"),
      p95: line(time(quantile(counts, bounds, 0.95), bounds)),
    };
  }

  arrange(now, rows) {
    const known = rows.every((row) => this.order.has(row.action));
    if (known && now >= this.ordered && now - this.ordered < REORDER) return;
    const sorted = [...rows].sort((one, other) => (other.rate ?? -1) - (one.rate ?? -1) || other.total - one.total);
    this.order = new Map(sorted.map((row, place) => [row.action, place]));
    this.ordered = now;
  }
}

/** @param {HTMLElement} card */
export function servicesTable(card) {
  const table = new Table(card, {
    title: "Services",
    empty: "No service is announced.",
    key: (row) => `${row.sector} ${row.service}`,
    columns: [
      { label: "Service", style: "name", cell: (row) => ({ text: row.service, title: row.service }) },
      { label: "Sector", cell: (row) => row.sector },
      { label: "Instances", style: "number", cell: (row) => String(row.instances) },
      { label: "Actions", style: "number", cell: (row) => line(count(row.actions)) },
    ],
  });
  return (overview, filter) => {
    const { shown, more, total, actions, found } = overview.services;
    const { unauthorized } = overview.discovery;
    table.show(shown, {
      more,
      summary: `${filter === "" ? "" : `${found} of `}${counted(total, "service")} · ${counted(actions, "action")}${unauthorized > 0 ? ` · ${unauthorized} not permitted` : ""}`,
      empty: filter === "" ? undefined : NO_MATCH,
    });
  };
}

/** @param {HTMLElement} card */
export function rejectedTable(card) {
  const table = new Table(card, {
    title: "Refused announcements",
    empty: "None.",
    hidden: "a filter shows those among the first 100",
    key: (row) => row.key,
    columns: [
      { label: "Identity", style: "name mono", cell: (row) => ({ text: row.identity, title: row.identity }) },
      { label: "Reason", cell: (row) => ({ text: row.reason, kind: "warn" }) },
      { label: "Detail", style: "wide", cell: (row) => ({ text: row.detail, title: row.detail }) },
    ],
  });
  return (overview, filter) => {
    const { shown, more, total, reasons } = overview.rejected;
    const rows = shown.map((row, at) => ({ ...row, key: `${at} ${row.identity}` }));
    const parts = Object.entries(reasons).filter(([, number]) => number > 0).map(([reason, number]) => `${number} ${reason}`);
    table.show(rows, { more, summary: total === 0 ? "" : parts.join(" · "), empty: filter === "" || total === 0 ? undefined : NO_MATCH });
  };
}

/** @param {HTMLElement} card */
export function reloadsTable(card) {
  let now = 0;
  const table = new Table(card, {
    title: "Reloads",
    empty: "Nothing was loaded since the start.",
    key: (row) => row.what,
    kind: (row) => (row.error === null ? "" : "failed"),
    columns: [
      { label: "What", style: "name", cell: (row) => row.what.replaceAll("_", " ") },
      { label: "Loaded", style: "number", cell: (row) => line(count(row.ok)) },
      { label: "Last", style: "number", cell: (row) => ago(row.last_ok, now) },
      { label: "Refused", style: "number", cell: (row) => ({ text: row.failed === 0 ? NONE : `${line(count(row.failed))}, ${ago(row.last_failed, now)}`, kind: row.error === null ? "" : "bad" }) },
      { label: "Wrong now", style: "wide", cell: (row) => ({ text: row.error ?? "", kind: "bad", title: row.error ?? "" }) },
    ],
  });
  return (overview) => {
    now = overview.at;
    table.show(overview.reloads);
  };
}
