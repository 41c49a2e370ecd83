// Where a ticket is pasted, and who one is with it.

import { announce, fill, h } from "./dom.js";
import { counted, durationText } from "./text.js";
import { canBeTicket, cleaned, ticket } from "./ticket.js";

const EXPIRY_LOOK = 15_000; // ms
const LAST_SECONDS = 120; // shown as such, so that each of them counts

/**
 * @param {HTMLDialogElement} dialog
 * @param {HTMLButtonElement} button
 */
export function ticketDialog(dialog, button) {
  const field = /** @type {HTMLInputElement} */ (
    h("input", {
      id: "ticket-text", type: "password", autocomplete: "off", spellcheck: "false",
      autocapitalize: "off", "aria-describedby": "ticket-error ticket-hint",
    })
  );
  const reveal = h("button", { type: "button", class: "small", "aria-pressed": "false", onclick: toggle }, "Show");
  const keep = /** @type {HTMLInputElement} */ (h("input", { type: "checkbox", id: "ticket-keep" }));
  const error = h("p", { id: "ticket-error", class: "bad", role: "alert" });
  const state = h("div", { class: "holder", role: "status" });
  const forget = h("button", { type: "button", onclick: () => ticket.use("", false) }, "Forget it");

  function toggle() {
    const shown = field.type === "password";
    field.type = shown ? "text" : "password";
    reveal.textContent = shown ? "Hide" : "Show";
    reveal.setAttribute("aria-pressed", String(shown));
  }

  function submit(event) {
    event.preventDefault();
    const text = cleaned(field.value);
    if (!canBeTicket(text)) {
      error.textContent = text ? "A ticket is one word of plain ASCII." : "Paste a ticket first.";
      field.focus();
      return;
    }
    error.textContent = "";
    field.value = "";
    if (field.type === "text") toggle();
    ticket.use(text, keep.checked);
    announce("Ticket in use");
  }

  fill(
    dialog,
    h(
      "form",
      { onsubmit: submit },
      h("h2", { id: "ticket-title" }, "Ticket"),
      state,
      h("label", { for: "ticket-text" }, "Paste a ticket"),
      h("div", { class: "row" }, field, reveal),
      error,
      h("p", { class: "check" }, keep, h("label", { for: "ticket-keep" }, "Keep it for this tab, so that it outlives a reload")),
      h("p", { id: "ticket-hint", class: "muted" },
        "It is sent to this gateway only, as ", h("code", {}, "Authorization: Bearer"),
        ", and stays in this page’s memory unless you say otherwise."),
      h("div", { class: "row end" }, forget,
        h("button", { type: "button", onclick: () => dialog.close() }, "Close"),
        h("button", { type: "submit", class: "primary" }, "Use ticket")),
    ),
  );

  let timer = 0;
  let wasExpired = false;

  function show() {
    forget.hidden = !ticket.present;
    wasExpired = hasExpired();
    showButton();
    fill(state, ...holderView(wasExpired));
    clearTimeout(timer);
    timer = setTimeout(tick, pause());
  }

  /** Only what changes with time: the rest would be read aloud again and again. */
  function tick() {
    if (hasExpired() === wasExpired) {
      showButton();
      timer = setTimeout(tick, pause());
      return;
    }
    show();
    announce("The ticket has expired");
  }

  function showButton() {
    const { holder, refused, present } = ticket;
    const expired = hasExpired();
    button.dataset.state = !present && !holder ? "none" : (present && refused) || expired ? "bad" : "good";
    fill(button, h("span", { class: "dot", "aria-hidden": "true" }), label(expired));
  }

  ticket.addEventListener("changed", show);
  ticket.addEventListener("known", () => {
    show();
    if (!ticket.present) return;
    if (ticket.refused) announce(`Ticket refused: ${ticket.refused}`);
    else if (dialog.open) dialog.close(); // also where nobody can say whose it is
  });
  button.addEventListener("click", () => openDialog(dialog));
  show();
}

/** @param {HTMLDialogElement} dialog */
export function openDialog(dialog) {
  /** @type {HTMLInputElement} */ (dialog.querySelector("#ticket-keep")).checked = ticket.isKept;
  dialog.showModal();
  /** @type {HTMLInputElement} */ (dialog.querySelector("#ticket-text")).focus();
}

function label(expired) {
  if (!ticket.present && !ticket.holder) return "Set ticket";
  if (ticket.present && ticket.refused) return "Ticket refused";
  if (expired) return "Ticket expired";
  const { holder } = ticket;
  if (holder === null) return "Ticket set";
  const who = holder.user ? `User ${holder.user}` : "Ticket";
  return [who, holder.expires && h("span", { class: "until" }, remaining(holder))];
}

function hasExpired() {
  const { holder } = ticket;
  return Boolean(holder?.expires && holder.expires * 1000 <= Date.now());
}

/** Milliseconds until there is something else to show. */
function pause() {
  const left = (ticket.holder?.expires ?? 0) - Date.now() / 1000;
  return left > 0 && left < LAST_SECONDS ? 1000 : EXPIRY_LOOK;
}

function remaining(holder) {
  return `${durationText(holder.expires - Date.now() / 1000)} left`;
}

function holderView(expired) {
  const { holder, refused, present, mode } = ticket;
  if (!present && !holder) return [h("p", { class: "muted" }, "None in use. Actions that are open to everybody work without.")];
  if (present && refused) return [h("p", { class: "bad" }, h("strong", {}, "Refused. "), refused)];
  if (holder === null) {
    const why = mode === "forward" ? "This gateway passes tickets on unread." : "This gateway does not say whose it is.";
    return [h("p", {}, "In use. ", why)];
  }
  const until = holder.expires && new Date(holder.expires * 1000).toLocaleString();
  return [
    h("dl", { class: "facts" },
      !present && [h("dt", {}, "From"), h("dd", {}, "a cookie of this gateway’s")],
      holder.user && [h("dt", {}, "User"), h("dd", {}, holder.user)],
      holder.client && [h("dt", {}, "Client"), h("dd", {}, holder.client)],
      until && [h("dt", {}, expired ? "Expired" : "Expires"),
        h("dd", { class: expired ? "bad" : null }, expired ? until : `${until}, ${remaining(holder)}`)],
      h("dt", {}, counted(holder.privileges.length, "privilege")),
      h("dd", { class: "chips" }, holder.privileges.map((name) => h("span", { class: "chip" }, name)))),
  ];
}
