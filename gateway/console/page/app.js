// Puts the page together: what is asked for, and what becomes of the answers.

import { announce, byId, fill, h } from "./dom.js";
import { Figures } from "./figures.js";
import { Instances } from "./instances.js";
import { Actions, rejectedTable, reloadsTable, servicesTable } from "./lists.js";
import { Poll } from "./poll.js";
import { Snapshots } from "./rates.js";
import { durationText } from "./text.js";
import { themeButton } from "./theme-button.js";

const KINDS = { ready: "good", draining: "warn", replaced: "warn", "not ready": "bad" };
const TYPING = 150;

const filter = /** @type {HTMLInputElement} */ (byId("filter"));
const pause = byId("pause");
const banner = byId("banner");
const snapshots = new Snapshots();
const figures = new Figures(byId("figures"));
const instances = new Instances(byId("instances"));
const actions = new Actions(byId("actions"));
const services = servicesTable(byId("services"));
const rejected = rejectedTable(byId("rejected"));
const reloads = reloadsTable(byId("reloads"));

let wanted = "";
let state = "";
/** Of the gateway that this page is of. */
let version = "";
/** @type {any} the last answer */
let before = null;

const poll = new Poll(() => {
  const url = new URL("../overview", import.meta.url);
  if (wanted) url.searchParams.set("filter", wanted);
  return url;
});

// -- answers ----------------------------------------------------------------------------

poll.addEventListener("answer", (event) => {
  const overview = /** @type {CustomEvent} */ (event).detail;
  if (!banner.hidden) announce("The gateway answers again");
  banner.hidden = true;
  document.body.dataset.answers = "yes";
  snapshots.push(overview);
  head(overview);
  facts(overview);
  notices(overview);
  figures.show(snapshots);
  instances.show(overview, wanted);
  actions.show(snapshots, wanted);
  services(overview, wanted);
  rejected(overview, wanted);
  reloads(overview);
  explorerLink(overview.gateway);
});

poll.addEventListener("silence", (event) => {
  const { reason, seconds } = /** @type {CustomEvent} */ (event).detail;
  document.body.dataset.answers = "no";
  show(byId("state"), "no answer", "bad");
  // Said once: what is counted in it would be read out again and again.
  const text = `The gateway does not answer (${reason}). What is shown is old. Trying again by itself.`;
  if (banner.hidden || banner.textContent !== text) banner.textContent = text;
  banner.hidden = false;
  banner.dataset.seconds = String(seconds);
});

function head(overview) {
  const now = overview.gateway.state;
  show(byId("state"), now, KINDS[now] ?? "bad");
  if (state && now !== state) announce(`The gateway is ${now}`);
  if (startedAnew(overview)) announce("The gateway was started anew");
  state = now;
  before = overview;
  const out = overview.instances.states.out;
  document.title = `${out > 0 ? `(${out} out) ` : ""}${now === "ready" ? "" : `${now} · `}scamp-gateway`;
}

/** All of it, and not one of its workers: of these, some stay. */
function startedAnew(overview) {
  if (before === null || overview.gateway.started <= before.gateway.started) return false;
  const staying = overview.counted_by.filter((one) => before.counted_by.includes(one)).length;
  return staying === 0 || staying === overview.counted_by.length;
}

function show(element, text, kind) {
  element.hidden = false;
  if (element.textContent !== text) element.textContent = text;
  element.dataset.kind = kind;
}

/** @type {Map<string, HTMLElement>} */
const places = new Map();

function facts(overview) {
  const { gateway, discovery } = overview;
  const { count, answering } = gateway.workers;
  const age = discovery.age === null ? "never loaded" : `${durationText(discovery.age)} old`;
  const rows = [
    ["Version", gateway.version],
    ["Up", durationText(overview.at - gateway.started)],
    ["Workers", answering === count ? String(count) : `${answering} of ${count}`],
    ["Discovery", `${age}${discovery.stale ? ", stale" : ""}`],
    ["From", discovery.source],
    ["Public", gateway.public ?? "not listening"],
  ];
  for (const [name, text] of rows) {
    let place = places.get(name);
    if (place === undefined) {
      place = h("dd");
      places.set(name, place);
      byId("facts").append(h("div", {}, h("dt", {}, name), place));
    }
    if (place.textContent !== text) place.textContent = text;
  }
}

/** What somebody has to look at, in words. */
function notices(overview) {
  const { discovery, gateway, gauges } = overview;
  const found = gateway.checks.filter((check) => !check.ok).map((check) => ["bad", `${check.name}: ${check.detail}`]);
  version ||= gateway.version;
  if (gateway.version !== version) found.push(["warn", `This page is of version ${version}, and ${gateway.version} answers: load it anew.`]);
  if (gateway.state === "replaced") found.push(["warn", "Another process has taken over the addresses; this one finishes what it has."]);
  if (discovery.last_error) found.push(["bad", `Discovery: ${discovery.last_error}`]);
  if (discovery.stale) found.push(["warn", "Discovery is stale: its writer has died, or nothing is heard. What was known is still served."]);
  if (gauges.retry_budget <= 0) found.push(["warn", "The retry budget is spent: requests that fail are not tried again."]);
  if (gauges.clients >= gauges.clients_limit) found.push(["bad", "As many clients are connected as may be."]);
  const place = byId("notices");
  const text = JSON.stringify(found);
  if (place.dataset.shown === text) return;
  place.dataset.shown = text;
  fill(place, found.map(([kind, words]) => h("li", { "data-kind": kind }, words)));
}

/** The explorer is on the public listener, at the name by which we are called when it has none. */
function explorerLink(gateway) {
  if (!gateway.docs || !gateway.public || document.getElementById("explorer")) return;
  const url = new URL("/docs", gateway.public);
  if (url.hostname === "0.0.0.0" || url.hostname === "[::]") url.hostname = location.hostname;
  byId("links").prepend(h("li", {}, h("a", { id: "explorer", href: url.href }, "/docs"), " ", h("span", {}, "the explorer, on the public port")));
}

// -- what people do ---------------------------------------------------------------------

let typing = 0;
filter.addEventListener("input", () => {
  clearTimeout(typing);
  typing = setTimeout(() => {
    wanted = filter.value.trim();
    poll.now();
  }, TYPING);
});

pause.addEventListener("click", () => {
  const paused = !poll.paused;
  pause.setAttribute("aria-pressed", String(paused));
  document.body.dataset.paused = String(paused);
  poll.pause(paused);
});

addEventListener("keydown", (event) => {
  if (event.key !== "/" || event.ctrlKey || event.metaKey || event.altKey || document.activeElement === filter) return;
  event.preventDefault();
  filter.focus();
});

themeButton(/** @type {HTMLButtonElement} */ (byId("theme-button")));
byId("tools").hidden = false;
byId("live").hidden = false;
poll.now();
