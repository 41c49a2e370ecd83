// The reply: status, figures, what is wrong with it, body, header.

import { copyButton, h, fill, save } from "./dom.js";
import { jsonView } from "./json-view.js";
import { problemView } from "./problem.js";
import { beginning } from "./send.js";
import { bytesText, timeText } from "./text.js";

const SHOWN = 32 * 1024; // bytes; many more make the page slow, and nobody reads them here
const MAX_COPIED = 1024 * 1024;

/** @typedef {import("./send.js").Reply} Reply */

/**
 * @param {Reply} reply
 * @param {string} name of the file to save it as, without suffix
 * @param {() => void} setTicket
 */
export function replyView(reply, name, setTicket) {
  const text = beginning(reply, SHOWN);
  const problem = text === null ? null : problemView(reply, text, setTicket);
  return h("div", { class: "reply-body" },
    statusLine(reply),
    reply.end !== "whole" && h("p", { class: "broken" }, h("strong", {}, ENDS[reply.end]), ` ${reply.size ? bytesText(reply.size) : "Nothing"} came. `,
      reply.end === "too large" ? "The curl line above reads all of it." : "This is not the whole reply."),
    problem,
    bodyView(reply, text, name, problem !== null),
    headerView(reply));
}

const ENDS = {
  broken: "Broken off.",
  cancelled: "Cancelled.",
  "too large": "Too large to keep here.",
};

/** One sentence for those who listen. @param {Reply} reply */
export function replyText(reply) {
  const end = reply.end === "whole" ? "" : `, ${ENDS[reply.end]}`;
  return `Reply ${reply.status} ${reply.statusText}, ${timeText(reply.totalMs)}, ${bytesText(reply.size)}${end}`;
}

function statusLine(reply) {
  const kind = reply.end !== "whole" || reply.status >= 500 ? "bad" : reply.status >= 400 ? "warn" : "good";
  const first = reply.totalMs - reply.headMs > 50 && `first byte after ${timeText(reply.headMs)}`;
  return h("p", { class: "status-line" },
    h("span", { class: `status ${kind}` }, h("strong", {}, reply.status), ` ${reply.statusText}`),
    h("span", {}, timeText(reply.totalMs)),
    first && h("span", { class: "muted" }, first),
    h("span", {}, bytesText(reply.size)),
    h("span", { class: "muted" }, reply.type));
}

function bodyView(reply, text, name, isProblem) {
  if (reply.size === 0) return reply.end === "whole" && h("p", { class: "muted" }, "No body.");
  const suffix = isJson(reply) ? "json" : text === null ? "bin" : "txt";
  const keep = h("button", { type: "button", class: "quiet small", onclick: () => save(new Blob(reply.chunks, { type: reply.type }), `${name}.${suffix}`) },
    `Save ${bytesText(reply.size)}`);
  if (text === null) return h("div", { class: "body-head" }, h("p", { class: "muted" }, "Not text."), keep);
  const code = h("pre", { class: "code", tabindex: "0", "aria-label": "Body of the reply" });
  const cut = reply.size > SHOWN && h("p", { class: "muted cut" }, `The first ${bytesText(SHOWN)} of ${bytesText(reply.size)}.`);
  const copy = reply.size <= MAX_COPIED && copyButton("Copy", () => beginning(reply, MAX_COPIED) ?? "");
  const content = h("div", {},
    h("div", { class: "body-head" }, isJson(reply) && viewChoice(code, text), h("span", { class: "spring" }), copy, keep),
    cut, code);
  if (!isJson(reply)) code.textContent = text;
  return isProblem ? h("details", {}, h("summary", {}, "As it was sent"), content) : content;
}

function viewChoice(code, text) {
  const buttons = ["Pretty", "Raw"].map((label) => h("button", { type: "button", class: "small", onclick: () => show(label) }, label));
  const show = (label) => {
    fill(code, label === "Raw" ? text : jsonView(text));
    for (const button of buttons) button.setAttribute("aria-pressed", String(button.textContent === label));
  };
  show("Pretty");
  return h("span", { class: "segments", role: "group", "aria-label": "How the body is shown" }, buttons);
}

function headerView(reply) {
  return h("details", {},
    h("summary", {}, `Header, ${reply.headers.length} fields`),
    h("dl", { class: "facts wide" }, reply.headers.map(([name, value]) => [h("dt", {}, name), h("dd", {}, h("code", {}, value))])));
}

function isJson(reply) {
  return /[/+]json$/.test(reply.type);
}
