// The values that a service has published, as the events tell them. Pure.

const MAX_ROWS = 2000;

/** @typedef {{code: string, key: string, value: unknown, changed: number, changes: number}} Row */

export class Board {
  /** @type {Map<string, Row>} */
  rows = new Map();
  /** Values that there was no room for. */
  dropped = 0;
  stale = false;

  /**
   * @param {import("./sse.js").SseEvent} event
   * @param {number} now
   */
  take(event, now) {
    const said = parsed(event.data);
    switch (event.type) {
      case "snapshot":
        this.#snapshot(said, now);
        break;
      case "change":
        this.stale = false;
        this.#change(said, now);
        break;
      case "stale":
        this.stale = true;
        break;
      case "ready":
        this.stale = false;
        break;
    }
  }

  /** Everything, sorted. */
  sorted() {
    return [...this.rows.values()].sort((a, b) => a.code.localeCompare(b.code) || a.key.localeCompare(b.key));
  }

  #snapshot(said, now) {
    const before = this.rows;
    const known = before.size > 0;
    this.rows = new Map();
    this.dropped = 0;
    this.stale = false;
    for (const [code, values] of Object.entries(object(said.codes))) {
      for (const [key, value] of Object.entries(object(values))) {
        const old = before.get(idOf(code, key));
        const row = this.#set(code, key, value, old?.changed ?? 0, old?.changes ?? 0);
        if (row && known && !(old && same(old.value, value))) {
          row.changed = now;
          row.changes += 1;
        }
      }
    }
  }

  #change(said, now) {
    if (typeof said.code !== "string" || typeof said.key !== "string") return;
    const id = idOf(said.code, said.key);
    const old = this.rows.get(id);
    if (said.deleted === true) {
      this.rows.delete(id);
      return;
    }
    this.#set(said.code, said.key, said.value, now, (old?.changes ?? 0) + 1);
  }

  #set(code, key, value, changed, changes) {
    const id = idOf(code, key);
    if (this.rows.size >= MAX_ROWS && !this.rows.has(id)) {
      this.dropped += 1;
      return null;
    }
    const row = { code, key, value, changed, changes };
    this.rows.set(id, row);
    return row;
  }
}

function idOf(code, key) {
  return JSON.stringify([code, key]);
}

function same(one, other) {
  return JSON.stringify(one) === JSON.stringify(other);
}

function parsed(data) {
  try {
    return object(JSON.parse(data));
  } catch {
    return {};
  }
}

function object(value) {
  return value !== null && typeof value === "object" && !Array.isArray(value) ? value : {};
}
