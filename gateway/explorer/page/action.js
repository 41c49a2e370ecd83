// One action: what it is, the form to try it with, and the reply.

import { bodyEditor } from "./body.js";
import { announce, copyButton, fill, h } from "./dom.js";
import { breakable, preferred } from "./list.js";
import { keyOf, pairs, parameterForm } from "./parameters.js";
import { replyText, replyView } from "./reply.js";
import { curlLine, makeCall, missing } from "./request.js";
import { send } from "./send.js";
import { bytesText, durationText, inline, prose } from "./text.js";
import { ticket } from "./ticket.js";

const MAX_DRAFTS = 50;
const WAITING_AFTER = 500; // ms: most answers are here by then

/**
 * @typedef {import("./openapi.js").Described} Described
 * @typedef {import("./openapi.js").Entry} Entry
 * @typedef {import("./openapi.js").Operation} Operation
 * @typedef {{method: string, values: Map<string, import("./parameters.js").Value>,
 *   extra: [string, string][], bodies: Map<string, string>, type: string}} Draft
 */

export class ActionView {
  #place;
  #setTicket;
  /** What was filled in, by action. @type {Map<string, Draft>} */
  #drafts = new Map();
  /** @type {AbortController | null} */
  #running = null;
  #key = "";

  /**
   * @param {HTMLElement} place
   * @param {() => void} setTicket opens the dialog
   */
  constructor(place, setTicket) {
    this.#place = place;
    this.#setTicket = setTicket;
    place.addEventListener("keydown", (event) => {
      if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
        event.preventDefault();
        /** @type {HTMLFormElement | null} */ (place.querySelector("form.try"))?.requestSubmit();
      } else if (event.key === "Escape" && this.#running) {
        this.#running.abort();
      }
    });
  }

  /** Show what is there while no action is chosen. @param {...unknown} children */
  showText(...children) {
    this.#leave("");
    fill(this.#place, h("div", { class: "welcome" }, children));
  }

  /**
   * @param {Entry} entry
   * @param {Described} described
   * @param {string} [note] what there is to say before all else
   */
  show(entry, described, note = "") {
    const same = this.#key === entry.key;
    const reply = same ? this.#place.querySelector("#reply") : null;
    if (!same) this.#leave(entry.key);
    const draft = this.#draft(entry);
    const operation = entry.operations.find((one) => one.method === draft.method) ?? preferred(entry);
    const target = reply ?? h("section", { id: "reply", class: "reply", "aria-label": "Reply" });
    fill(this.#place,
      h("article", { "aria-labelledby": "action-name" },
        h("a", { class: "back", href: "#" }, "← All actions"),
        this.#head(entry, operation),
        note && h("p", { class: "notice" }, note),
        h("div", { class: "prose" },
          plainName(operation.summary) !== plainName(entry.name) && prose(operation.summary),
          operation.description !== operation.summary && prose(operation.description)),
        this.#form(entry, operation, draft, described, target, note),
        target,
        repliesView(operation)));
  }

  #leave(key) {
    this.#running?.abort();
    this.#running = null;
    this.#key = key;
  }

  /** @returns {Draft} */
  #draft(entry) {
    let draft = this.#drafts.get(entry.key);
    if (!draft) {
      draft = { method: preferred(entry).method, values: new Map(), extra: [["", ""]], bodies: new Map(), type: "" };
      this.#drafts.set(entry.key, draft);
      const oldest = this.#drafts.keys().next().value;
      if (this.#drafts.size > MAX_DRAFTS && oldest !== undefined) this.#drafts.delete(oldest);
    }
    return draft;
  }

  #head(entry, operation) {
    const { flags, timeout, retry, deprecated } = operation;
    const tickets = { required: "ticket required", optional: "ticket optional", none: "open to everybody" };
    const action = plainName(operation.action);
    const elsewhere = action !== "" && action.toLowerCase() !== plainName(entry.name).toLowerCase();
    return h("header", { class: "title" },
      h("h1", { id: "action-name", tabindex: "-1" }, breakable(entry.name)),
      h("p", { class: "chips" },
        flags.map((flag) => h("span", { class: "chip flag" }, flag)),
        h("span", { class: "chip" }, tickets[operation.ticket]),
        timeout !== null && h("span", { class: "chip" }, `within ${durationText(timeout)}`),
        retry !== undefined && retry !== null && h("span", { class: "chip" }, retryText(retry)),
        deprecated && h("span", { class: "chip bad" }, "deprecated"),
        elsewhere && h("span", { class: "chip" }, `runs ${action}`)));
  }

  #form(entry, operation, draft, described, target, note) {
    const curl = h("pre", { class: "code", tabindex: "0", "aria-label": "curl line" });
    const size = h("span", { class: "muted", role: "status" });
    const body = hasBody(operation) ? bodyEditor(operation, draft, described.resolve, refresh) : null;
    const extra = takesAnyQuery(operation);
    // Timeouts and request ids can be sent with everything and hardly ever are.
    const fields = operation.parameters.filter((one) => one.where === "header" && !one.required);
    const asked = operation.parameters.filter((one) => !fields.includes(one));
    const button = h("button", { type: "submit", class: "primary", title: "Ctrl+Enter" }, "Send");
    const cancel = h("button", { type: "button", hidden: true, onclick: () => this.#running?.abort() }, "Cancel");

    function call() {
      const typed = body ? { type: draft.type, text: draft.bodies.get(draft.type) ?? "" } : null;
      const made = makeCall(entry.path, operation, draft.values, typed, described);
      if (extra) for (const [name, value] of draft.extra) if (name) made.url.searchParams.append(name, value);
      return made;
    }
    function refresh() {
      curl.textContent = curlLine(call(), operation.ticket !== "none" || ticket.present);
    }
    const submit = (event) => {
      event.preventDefault();
      const empty = missing(operation, draft.values)[0];
      if (empty) {
        const field = /** @type {HTMLElement} */ ([...form.querySelectorAll("[data-key]")].find((one) => one.getAttribute("data-key") === keyOf(empty)));
        field.setAttribute("aria-invalid", "true");
        field.focus();
        announce(`${empty.name} is part of the path and must not be empty`);
        return;
      }
      void this.#send(call(), { target, button, cancel, size, name: entry.short.replace(/[^\w.-]+/g, "-").replace(/^-|-$/g, "") });
    };
    const form = h("form", { class: "try", onsubmit: submit, novalidate: true },
      h("div", { class: "line" },
        this.#methods(entry, operation, draft, () => this.show(entry, described, note)),
        h("code", { class: "path" }, breakable(entry.path)),
        h("span", { class: "spring" }), size, cancel, button),
      asked.length > 0 && h("section", { class: "block" }, h("h2", {}, "Parameters"),
        parameterForm(asked, described.resolve, draft.values, refresh)),
      extra && h("section", { class: "block" }, h("h2", {}, "Query"),
        h("p", { class: "muted" }, "Names and values become the JSON object that the action gets."), pairs(draft.extra, "Query", refresh)),
      body,
      fields.length > 0 && h("details", { class: "block fields" }, h("summary", {}, "Header fields"),
        parameterForm(fields, described.resolve, draft.values, refresh)),
      h("details", { class: "block curl" }, h("summary", {}, "As a curl line"), curl, copyButton("Copy", () => curl.textContent ?? "")));
    refresh();
    return form;
  }

  #methods(entry, operation, draft, show) {
    if (entry.operations.length === 1) return h("span", { class: "method", "data-method": operation.method }, operation.method);
    const choose = (event) => {
      draft.method = event.target.value;
      this.#running?.abort(); // its Cancel goes with the form
      show();
      /** @type {HTMLElement} */ (this.#place.querySelector("input[name=method]:checked")).focus();
    };
    return h("fieldset", { class: "methods" }, h("legend", { class: "hidden" }, "Method"),
      entry.operations.map(({ method }) =>
        h("label", {},
          h("input", { type: "radio", name: "method", value: method, checked: method === operation.method, onchange: choose }),
          h("span", { class: "method", "data-method": method }, method))));
  }

  async #send(call, { target, button, cancel, size, name }) {
    this.#running?.abort();
    const running = (this.#running = new AbortController());
    button.disabled = true;
    cancel.hidden = false;
    target.setAttribute("aria-busy", "true");
    // Disabling the button takes the focus from it, and Escape with it.
    cancel.focus({ preventScroll: true });
    let shown = 0;
    const waiting = setTimeout(() => (size.textContent = "Waiting…"), WAITING_AFTER);
    const progress = (bytes) => {
      clearTimeout(waiting);
      if (performance.now() - shown < 200) return;
      shown = performance.now();
      size.textContent = bytesText(bytes);
    };
    try {
      const reply = await send(call, running.signal, progress);
      if (this.#running === running) {
        fill(target, h("h2", {}, "Reply"), replyView(reply, name, this.#setTicket));
        announce(replyText(reply));
      }
    } catch (error) {
      if (this.#running === running) {
        const text = failureText(error, running.signal.aborted);
        fill(target, h("h2", {}, "Reply"), h("p", { class: running.signal.aborted ? "muted" : "broken" }, text));
        announce(text);
      }
    } finally {
      clearTimeout(waiting);
      if (this.#running === running) this.#running = null;
      if (this.#running === null) this.#rest(target, button, cancel, size); // else the next is under way
    }
  }

  #rest(target, button, cancel, size) {
    const focused = document.activeElement === cancel || document.activeElement === document.body;
    target.removeAttribute("aria-busy");
    size.textContent = "";
    button.disabled = false;
    cancel.hidden = true;
    if (focused) button.focus({ preventScroll: true });
    if (target.isConnected) target.scrollIntoView({ block: "nearest" });
  }
}

function failureText(error, cancelled) {
  if (cancelled) return "Cancelled before the reply began.";
  const why = error?.message ?? error;
  if (error instanceof RangeError) return `Not sent: ${why}.`;
  return `No reply: the gateway cannot be reached, or the connection broke (${why}).`;
}

function hasBody(operation) {
  return operation.body !== null && !["GET", "HEAD"].includes(operation.method);
}

/** Where nothing is said about the query of what takes one, it is whatever one likes. */
function takesAnyQuery(operation) {
  const takes = ["GET", "HEAD"].includes(operation.method) || (operation.method === "DELETE" && operation.body === null);
  return takes && operation.action !== "" && operation.parameters.every((one) => one.where === "header");
}

/** Without what is understood when it is left out. */
function plainName(label) {
  return label.replace(/^main:/i, "").replace(/~1$/, "");
}

function retryText(retry) {
  if (retry === "always") return "safe to repeat";
  if (retry === "not-sent") return "never repeated once sent";
  return typeof retry === "string" ? retry : `retry: ${JSON.stringify(retry)}`;
}

function repliesView(operation) {
  if (operation.replies.length === 0) return null;
  return h("details", { class: "block" }, h("summary", {}, "What it may answer"),
    h("dl", { class: "facts wide" }, operation.replies.map(({ status, description }) => [
      h("dt", {}, h("code", {}, status)), h("dd", {}, inline(description))])));
}
