// One action: what it is, the form to try it with, and the reply.

import { announce, copyButton, fill, h } from "./dom.js";
import { breakable, preferred } from "./list.js";
import { keyOf, pairs, parameterForm } from "./parameters.js";
import { replyText, replyView } from "./reply.js";
import { curlLine, makeCall, missing } from "./request.js";
import { example } from "./schema.js";
import { schemaView } from "./schema-view.js";
import { send } from "./send.js";
import { bytesText, durationText, inline, prose } from "./text.js";
import { ticket } from "./ticket.js";

const MAX_DRAFTS = 50;

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
   */
  show(entry, described) {
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
        h("div", { class: "prose" }, prose(operation.summary), operation.description !== operation.summary && prose(operation.description)),
        this.#form(entry, operation, draft, described, target),
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
    const elsewhere = operation.action && operation.action.toLowerCase() !== entry.name.toLowerCase();
    return h("header", { class: "title" },
      h("h1", { id: "action-name", tabindex: "-1" }, breakable(entry.name)),
      h("p", { class: "chips" },
        flags.map((flag) => h("span", { class: "chip flag" }, flag)),
        h("span", { class: "chip" }, tickets[operation.ticket]),
        timeout !== null && h("span", { class: "chip" }, `within ${durationText(timeout)}`),
        retry !== undefined && retry !== null && h("span", { class: "chip" }, retryText(retry)),
        deprecated && h("span", { class: "chip bad" }, "deprecated"),
        elsewhere && h("span", { class: "chip" }, `runs ${operation.action}`)));
  }

  #form(entry, operation, draft, described, target) {
    const curl = h("pre", { class: "code", tabindex: "0", "aria-label": "curl line" });
    const size = h("span", { class: "muted", role: "status" });
    const body = hasBody(operation) ? this.#body(operation, draft, described, refresh) : null;
    const extra = takesAnyQuery(operation);
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
      void this.#send(call(), { target, button, cancel, size, name: entry.short });
    };
    const form = h("form", { class: "try", onsubmit: submit, novalidate: true },
      h("div", { class: "line" },
        this.#methods(entry, operation, draft, described),
        h("code", { class: "path" }, breakable(entry.path)),
        h("span", { class: "spring" }), size, cancel, button),
      operation.parameters.length > 0 && h("section", { class: "block" }, h("h2", {}, "Parameters"),
        parameterForm(operation.parameters, described.resolve, draft.values, refresh)),
      extra && h("section", { class: "block" }, h("h2", {}, "Query"),
        h("p", { class: "muted" }, "Names and values become the JSON object that the action gets."), pairs(draft.extra, "Query", refresh)),
      body,
      h("details", { class: "block curl" }, h("summary", {}, "As a curl line"), curl, copyButton("Copy", () => curl.textContent ?? "")));
    refresh();
    return form;
  }

  #methods(entry, operation, draft, described) {
    if (entry.operations.length === 1) return h("span", { class: "method", "data-method": operation.method }, operation.method);
    const choose = (event) => {
      draft.method = event.target.value;
      this.show(entry, described);
      /** @type {HTMLElement} */ (this.#place.querySelector("input[name=method]:checked")).focus();
    };
    return h("fieldset", { class: "methods" }, h("legend", { class: "hidden" }, "Method"),
      entry.operations.map(({ method }) =>
        h("label", {},
          h("input", { type: "radio", name: "method", value: method, checked: method === operation.method, onchange: choose }),
          h("span", { class: "method", "data-method": method }, method))));
  }

  #body(operation, draft, described, changed) {
    const types = operation.body?.types.length ? operation.body.types : [{ type: "application/json", schema: undefined, example: undefined }];
    if (!types.some((one) => one.type === draft.type)) draft.type = types[0].type;
    const area = /** @type {HTMLTextAreaElement} */ (
      h("textarea", { id: "body", rows: 8, spellcheck: "false", autocapitalize: "off", "aria-describedby": "body-note" }));
    const note = h("p", { id: "body-note", class: "note", role: "status" });
    const side = h("div", { class: "schema-side" });
    const format = h("button", { type: "button", class: "quiet small", onclick: tidy }, "Format");

    const check = () => {
      draft.bodies.set(draft.type, area.value);
      note.textContent = isJsonType(draft.type) ? complaint(area.value) : "";
      changed();
    };
    const choose = () => {
      const chosen = /** @type {any} */ (types.find((one) => one.type === draft.type));
      if (!draft.bodies.has(draft.type)) draft.bodies.set(draft.type, prefilled(chosen, described.resolve));
      area.value = draft.bodies.get(draft.type) ?? "";
      area.rows = Math.min(24, Math.max(6, area.value.split("\n").length + 1));
      format.hidden = !isJsonType(draft.type);
      fill(side, chosen.schema === undefined || chosen.schema === true
        ? h("p", { class: "muted" }, "The service does not describe its body.")
        : schemaView(chosen.schema, described.resolve));
      note.textContent = isJsonType(draft.type) ? complaint(area.value) : "";
    };
    function tidy() {
      try {
        area.value = JSON.stringify(JSON.parse(area.value), null, 2);
        check();
      } catch {
        area.focus();
      }
    }
    area.addEventListener("input", check);
    const select = h("select", { "aria-label": "Content type", onchange: (event) => {
      draft.type = event.target.value;
      choose();
      changed();
    } }, types.map(({ type }) => h("option", { value: type, selected: type === draft.type }, type)));
    choose();
    return h("section", { class: "block" },
      h("div", { class: "body-head" }, h("h2", {}, h("label", { for: "body" }, "Body")),
        types.length > 1 ? select : h("span", { class: "muted" }, types[0].type), h("span", { class: "spring" }), format),
      operation.body?.description && h("p", { class: "muted" }, inline(operation.body.description)),
      h("div", { class: "body-grid" }, h("div", {}, area, note), side));
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
    const progress = (bytes) => {
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
        const text = running.signal.aborted ? "Cancelled before the reply began." : "No reply: the gateway cannot be reached, or the connection broke.";
        fill(target, h("h2", {}, "Reply"), h("p", { class: running.signal.aborted ? "muted" : "broken" }, text,
          !running.signal.aborted && h("span", { class: "muted" }, ` (${error?.message ?? error})`)));
        announce(text);
      }
    } finally {
      if (this.#running === running) this.#running = null;
      const focused = document.activeElement === cancel || document.activeElement === document.body;
      target.removeAttribute("aria-busy");
      size.textContent = "";
      button.disabled = false;
      cancel.hidden = true;
      if (focused) button.focus({ preventScroll: true });
      if (target.isConnected) target.scrollIntoView({ block: "nearest" });
    }
  }
}

function hasBody(operation) {
  return operation.body !== null && !["GET", "HEAD"].includes(operation.method);
}

/** Where nothing is said about the query of what takes one, it is whatever one likes. */
function takesAnyQuery(operation) {
  const takes = ["GET", "HEAD"].includes(operation.method) || (operation.method === "DELETE" && operation.body === null);
  return takes && operation.action !== "" && operation.parameters.every((one) => one.where === "header");
}

function prefilled(chosen, resolve) {
  if (!isJsonType(chosen.type)) return typeof chosen.example === "string" ? chosen.example : "";
  const value = chosen.example ?? example(chosen.schema, resolve);
  return JSON.stringify(value ?? {}, null, 2);
}

function complaint(text) {
  if (text.trim() === "") return "";
  try {
    JSON.parse(text);
    return "";
  } catch (error) {
    return `Not JSON yet: ${error.message}`;
  }
}

function isJsonType(type) {
  return /[/+]json\b/.test(type);
}

function retryText(retry) {
  if (retry === true || retry === "safe") return "safe to retry";
  if (retry === false || retry === "unsafe") return "not retried once sent";
  return typeof retry === "string" ? retry : `retry: ${JSON.stringify(retry)}`;
}

function repliesView(operation) {
  if (operation.replies.length === 0) return null;
  return h("details", { class: "block" }, h("summary", {}, "What it may answer"),
    h("dl", { class: "facts wide" }, operation.replies.map(({ status, description }) => [
      h("dt", {}, h("code", {}, status)), h("dd", {}, inline(description))])));
}
