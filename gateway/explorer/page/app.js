// Puts the page together: which view is shown, and what is fetched when.

import { ActionView } from "./action.js";
import { byId, fill, h } from "./dom.js";
import { EventsPage } from "./events.js";
import { ActionList } from "./list.js";
import { readDocument } from "./openapi.js";
import { actionsPage, eventsPage, fragment, onEventsPage, root } from "./places.js";
import { inline, prose } from "./text.js";
import { themeButton } from "./theme-button.js";
import { openDialog, ticketDialog } from "./ticket-dialog.js";
import { ticket } from "./ticket.js";

const dialog = /** @type {HTMLDialogElement} */ (byId("ticket-dialog"));
const setTicket = () => openDialog(dialog);
const list = new ActionList(/** @type {HTMLInputElement} */ (byId("filter")), byId("filter-count"), byId("list"));
const view = new ActionView(byId("detail"), setTicket);
const events = new EventsPage(byId("page-events"), setTicket);

/** @type {import("./openapi.js").Described | null} */
let described = null;
let loads = 0;
/** What was shown last stays in view when another ticket does not list it: why, its reply tells.
 * @type {{entry: import("./openapi.js").Entry, described: import("./openapi.js").Described} | null} */
let shown = null;
const NOT_LISTED = "It is not listed any more, or not for this ticket.";

// -- the description --------------------------------------------------------------------

async function load() {
  const number = ++loads;
  byId("list").setAttribute("aria-busy", "true");
  try {
    const found = await fetchDocument();
    if (number !== loads) return;
    described = found;
    document.title = title();
    list.show(described);
    warn("");
    if (described.cookie && !ticket.present) void ticket.ask();
    if (!onEventsPage()) route();
  } catch (error) {
    if (number !== loads) return;
    warn(`The list of actions could not be loaded: ${error.message}`, h("button", { type: "button", onclick: load }, "Try again"));
    if (described === null) view.showText(h("h1", {}, "Nothing to show"), h("p", {}, "The gateway did not give its description."));
  } finally {
    if (number === loads) byId("list").removeAttribute("aria-busy");
  }
}

async function fetchDocument() {
  const url = new URL("openapi.json", root);
  let response = await fetch(url, { headers: ticket.headers(), credentials: ticket.credentials, cache: "no-cache" });
  // A ticket that is no good must not hide what is open to everybody.
  if (response.status === 401 && ticket.present) response = await fetch(url, { credentials: "omit", cache: "no-cache" });
  const said = await response.json().catch(() => null);
  if (response.status === 404) throw new Error("this gateway does not describe its actions.");
  if (!response.ok) throw new Error(said?.detail ?? `status ${response.status}`);
  if (said === null || typeof said !== "object") throw new Error("it is no JSON object");
  return readDocument(said);
}

/** @param {string} text @param {...unknown} children */
function warn(text, ...children) {
  const banner = byId("banner");
  banner.hidden = !text;
  fill(banner, h("span", {}, inline(text)), children);
}

// -- what is shown ----------------------------------------------------------------------

function route() {
  const live = onEventsPage();
  byId("page-actions").hidden = live;
  byId("page-events").hidden = !live;
  mark(byId("tab-actions"), !live);
  mark(byId("tab-events"), live);
  if (live) {
    document.title = "Live values · scamp-gateway";
    events.enter();
    return;
  }
  events.leave();
  showAction();
}

function showAction() {
  const key = fragment();
  document.body.dataset.view = key ? "detail" : "list";
  list.mark(key);
  if (described === null) return;
  const entry = described.entries.get(key);
  if (entry) shown = { entry, described };
  document.title = key ? `${key} · scamp-gateway` : title();
  if (key && shown?.entry.key === key) view.show(shown.entry, shown.described, entry ? "" : NOT_LISTED);
  else if (key) view.showText(h("h1", {}, "No such action"),
    h("p", {}, h("code", {}, key), " is not announced, or not for this ticket."), h("p", {}, h("a", { href: "#" }, "All actions")));
  else view.showText(h("h1", {}, described.title || "Actions"), prose(described.description), invitation(), hints());
}

function invitation() {
  if (ticket.present) return null;
  return h("p", {}, "Without a ticket you may see only what is open to everybody. ",
    h("button", { type: "button", class: "link", onclick: setTicket }, "Set a ticket"));
}

function hints() {
  const hint = (key, text) => h("li", {}, h("kbd", {}, key), " ", text);
  return h("ul", { class: "hints" }, hint("/", "filters the list"), hint("↑ ↓", "go through it"),
    hint("Enter", "opens an action"), hint("Ctrl Enter", "sends"), hint("Esc", "cancels"));
}

function title() {
  return described?.title || "scamp-gateway";
}

function mark(tab, current) {
  if (current) tab.setAttribute("aria-current", "page");
  else tab.removeAttribute("aria-current");
}

/** Change the page without leaving it: a ticket that is in memory only stays. */
function pageLink(id, url) {
  const link = /** @type {HTMLAnchorElement} */ (byId(id));
  link.href = url.pathname;
  link.addEventListener("click", (event) => {
    if (event.ctrlKey || event.metaKey || event.shiftKey || event.altKey) return;
    event.preventDefault();
    if (location.href !== url.href) history.pushState(null, "", url);
    route();
  });
}

// -- from here on -----------------------------------------------------------------------

pageLink("brand", actionsPage);
pageLink("tab-actions", actionsPage);
pageLink("tab-events", eventsPage);
byId("skip").addEventListener("click", (event) => {
  event.preventDefault();
  byId(onEventsPage() ? "page-events" : "detail").focus();
});
addEventListener("popstate", () => {
  route();
  // Whoever chose an action by keyboard goes on in it, not in the list.
  if (!onEventsPage() && fragment()) document.getElementById("action-name")?.focus({ preventScroll: true });
});
ticket.addEventListener("changed", () => {
  void load();
  if (ticket.present) void ticket.ask();
});
themeButton(/** @type {HTMLButtonElement} */ (byId("theme-button")));
ticketDialog(dialog, /** @type {HTMLButtonElement} */ (byId("ticket-button")));
route();
void load();
if (ticket.present) void ticket.ask();
