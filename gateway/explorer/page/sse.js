// Server-sent events from a stream of text (WHATWG HTML, "Interpreting an event stream"). Pure.

const MAX_EVENT = 4 * 1024 * 1024; // characters; nobody publishes so much, but a stranger may

/** @typedef {{type: string, data: string, id: string}} SseEvent */

export class SseParser {
  #rest = "";
  #data = "";
  #type = "";
  #first = true;
  /** The last event's id, to go on from. */
  lastId = "";
  /** Milliseconds before the next attempt, as the server wishes. @type {number | null} */
  retry = null;

  /**
   * Take what came.
   * @param {string} text
   * @returns {SseEvent[]} those that are complete
   * @throws {RangeError} when one has no end
   */
  feed(text) {
    if (this.#first && text) {
      this.#first = false;
      text = text.replace(/^\uFEFF/, "");
    }
    const lines = (this.#rest + text).split(/\r\n|\n|\r(?!$)/);
    this.#rest = lines.pop() ?? "";
    const events = [];
    for (const line of lines) this.#line(line, events);
    if (this.#rest.length + this.#data.length > MAX_EVENT) throw new RangeError("an event is too large");
    return events;
  }

  #line(line, events) {
    if (line === "") {
      if (this.#data) events.push({ type: this.#type || "message", data: this.#data.slice(0, -1), id: this.lastId });
      this.#data = "";
      this.#type = "";
      return;
    }
    const at = line.indexOf(":");
    const field = at < 0 ? line : line.slice(0, at);
    const value = at < 0 ? "" : line.slice(at + 1).replace(/^ /, "");
    if (field === "data") this.#data += `${value}\n`;
    else if (field === "event") this.#type = value;
    else if (field === "id" && !value.includes("\0")) this.lastId = value;
    else if (field === "retry" && /^\d{1,7}$/.test(value)) this.retry = Number(value);
  }
}
