// The page of live values: what to follow, how the connection is, and the values as they change.

import { Board } from "./board.js";
import { announce, fill, h } from "./dom.js";
import { follow } from "./follow.js";
import { fragment, root } from "./places.js";
import { counted, durationText } from "./text.js";
import { ticket } from "./ticket.js";

const FRESH = 2500; // ms that a change is shown for

const STATES = {
  idle: "Not following",
  connecting: "Connecting",
  open: "Waiting for the values",
  ready: "Live",
  stale: "Stale",
  waiting: "Reconnecting",
  ended: "Ended",
};

export class EventsPage {
  #place;
  #setTicket;
  #service = field("events-service", "SERVICE or SECTOR:SERVICE");
  #codes = field("events-codes", "one or more");
  #state = h("p", { class: "state", role: "status", "data-state": "idle" });
  #table = h("div", { class: "values" });
  #board = new Board();
  #changes = 0;
  #redraw = 0;
  #frame = 0;
  /** Whether somebody wants to follow, also when it ended for want of a ticket. */
  #wanted = false;
  /** @type {AbortController | null} */
  #following = null;

  /**
   * @param {HTMLElement} place
   * @param {() => void} setTicket
   */
  constructor(place, setTicket) {
    this.#place = place;
    this.#setTicket = setTicket;
    const submit = (event) => {
      event.preventDefault();
      if (this.#service.value.trim()) this.#start();
      else this.#service.focus();
    };
    fill(place,
      h("header", { class: "title" }, h("h1", { tabindex: "-1" }, "Live values"),
        h("p", { class: "muted" }, "What a service publishes, as it changes.")),
      h("form", { class: "follow", onsubmit: submit },
        labelled("Service", this.#service), labelled("Codes", this.#codes),
        h("div", { class: "row" }, h("button", { type: "submit", class: "primary" }, "Follow"),
          h("button", { type: "button", onclick: () => this.#stop() }, "Stop"))),
      this.#state, this.#table);
    this.#show("idle");
    this.#draw();
    ticket.addEventListener("changed", () => this.#wanted && this.#start());
  }

  /** The page comes into view: what its address names is followed. */
  enter() {
    const [service = "", query = ""] = split(fragment());
    if (this.#following !== null || !service) return;
    this.#service.value = service;
    this.#codes.value = new URLSearchParams(query).getAll("code").join(" ");
    this.#start();
  }

  /** It goes out of view. */
  leave() {
    this.#stop();
  }

  #start() {
    this.#wanted = true;
    const service = this.#service.value.trim();
    const codes = this.#codes.value.split(/[\s,]+/).filter(Boolean);
    const query = new URLSearchParams(codes.map((code) => ["code", code])).toString();
    history.replaceState(null, "", `#${encodeURIComponent(service).replace(/%3A/g, ":")}${query && `?${query}`}`);
    const url = new URL(`api/events/${encodeURIComponent(service).replace(/%3A/g, ":")}`, root);
    url.search = query;
    this.#following?.abort();
    const following = (this.#following = new AbortController());
    this.#board = new Board();
    this.#changes = 0;
    this.#draw();
    const current = () => this.#following === following;
    void follow(url, following.signal,
      (event) => (current() ? this.#take(event) : "end"),
      (connection) => {
        if (!current()) return;
        if (connection.state === "ended") this.#following = null;
        if (connection.state !== "ended" || this.#state.dataset.state !== "ended") this.#show(connection.state, connection.detail, connection.wait);
      });
  }

  #stop() {
    this.#wanted = false;
    if (this.#following === null) return;
    this.#following.abort();
    this.#following = null;
    this.#show("idle");
  }

  #take(event) {
    this.#board.take(event, Date.now());
    if (event.type === "expired") {
      this.#show("ended", "The ticket has expired.");
      return "end";
    }
    if (event.type === "change") this.#changes += 1;
    const state = this.#board.stale ? "stale" : "ready";
    if (this.#state.dataset.state !== state) this.#show(state, state === "stale" ? "The service is away; these are its last values." : "");
    this.#figures();
    this.#soon();
    return undefined;
  }

  #show(state, detail = "", wait = 0) {
    this.#state.dataset.state = state;
    const text = state === "waiting" ? `${STATES.waiting} in ${durationText(Math.max(1, wait / 1000))}` : STATES[state];
    const refused = state === "ended" && /^(401|403)|expired/.test(detail);
    fill(this.#state, h("span", { class: "dot", "aria-hidden": "true" }), h("strong", {}, text),
      detail && h("span", {}, detail),
      refused && h("button", { type: "button", class: "link", onclick: this.#setTicket }, "Set a ticket"),
      h("span", { class: "figures", "aria-live": "off" }));
    this.#figures();
    if (this.#place.checkVisibility()) announce(`${text}. ${detail}`);
  }

  #figures() {
    const place = this.#state.querySelector(".figures");
    if (place) place.textContent = this.#board.rows.size || this.#changes
      ? `${counted(this.#board.rows.size, "value")}, ${counted(this.#changes, "change")}` : "";
  }

  /** However fast values come, they are drawn once per frame. */
  #soon() {
    if (this.#frame === 0) this.#frame = requestAnimationFrame(() => this.#draw());
  }

  #draw() {
    this.#frame = 0;
    const rows = this.#board.sorted();
    if (rows.length === 0) {
      fill(this.#table, h("p", { class: "empty" }, this.#following ? "No values yet." : "Name a service and the codes to follow, then press Follow."));
      return;
    }
    let last = "";
    const body = rows.map((row) => {
      const first = row.code !== last;
      last = row.code;
      const isFresh = Date.now() - row.changed < FRESH;
      return h("tr", { class: [first && "first", isFresh && "fresh"].filter(Boolean).join(" ") || null },
        h("th", { scope: "row" }, first ? row.code : h("span", { class: "hidden" }, row.code)),
        h("td", {}, row.key),
        h("td", { class: "value" }, typeof row.value === "string" ? row.value : JSON.stringify(row.value)),
        h("td", { class: "when" }, row.changed ? new Date(row.changed).toLocaleTimeString() : "—"),
        h("td", { class: "when" }, row.changes || "—"));
    });
    fill(this.#table, h("table", {},
      h("thead", {}, h("tr", {}, ["Code", "Key", "Value", "Changed", "Times"].map((name) => h("th", { scope: "col" }, name)))),
      h("tbody", {}, body)),
      this.#board.dropped > 0 && h("p", { class: "muted" }, `${this.#board.dropped} more are not shown.`));
    clearTimeout(this.#redraw);
    if (rows.some((row) => Date.now() - row.changed < FRESH)) {
      this.#redraw = setTimeout(() => this.#draw(), FRESH);
    }
  }
}

function field(id, placeholder) {
  return /** @type {HTMLInputElement} */ (
    h("input", { id, type: "text", placeholder, autocomplete: "off", autocapitalize: "off", spellcheck: "false" }));
}

function labelled(label, input) {
  return h("p", {}, h("label", { for: input.id }, label), input);
}

function split(text) {
  const at = text.indexOf("?");
  return at < 0 ? [text] : [text.slice(0, at), text.slice(at + 1)];
}
