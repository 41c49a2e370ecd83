// An answer that is no success, so that one sees what happened and what to do about it.

import { h } from "./dom.js";
import { jsonView } from "./json-view.js";
import { durationText, inline } from "./text.js";
import { ticket } from "./ticket.js";

const KNOWN = ["type", "title", "status", "detail", "instance", "code", "action", "upstream_code", "error_data"];

/**
 * @param {import("./send.js").Reply} reply
 * @param {string} text
 * @param {() => void} setTicket opens the dialog
 * @returns {HTMLElement | null} null when it is none
 */
export function problemView(reply, text, setTicket) {
  if (reply.type !== "application/problem+json") return null;
  let problem;
  try {
    problem = JSON.parse(text);
  } catch {
    return null;
  }
  if (problem === null || typeof problem !== "object") return null;
  const said = (name) => (problem[name] === null || problem[name] === undefined ? "" : String(problem[name]));
  const fact = (label, value) => value && [h("dt", {}, label), h("dd", {}, h("code", {}, value))];
  const data = problem.error_data;
  return h("div", { class: "problem" },
    h("h3", {}, said("title") || `Status ${reply.status}`),
    said("detail") && h("p", { class: "said" }, inline(said("detail"))),
    advice(reply, said("code"), setTicket),
    h("dl", { class: "facts" },
      fact("Code", said("code")),
      fact("Action", said("action")),
      fact("Service’s code", said("upstream_code")),
      data !== null && data !== undefined && [h("dt", {}, "Service’s data"), h("dd", {}, h("code", {}, jsonView(JSON.stringify(data))))],
      fact("Request", said("instance")),
      Object.keys(problem).filter((name) => !KNOWN.includes(name)).map((name) => fact(name, JSON.stringify(problem[name])))));
}

function advice(reply, code, setTicket) {
  const parts = [];
  if (reply.status === 401) {
    parts.push(
      ticket.present ? "The ticket in use does not do. " : "This needs a ticket. ",
      h("button", { type: "button", class: "link", onclick: setTicket }, ticket.present ? "Set another ticket" : "Set a ticket"));
  } else if (code === "privilege_missing" && ticket.holder) {
    const held = ticket.holder.privileges;
    parts.push(held.length ? "Your ticket carries: " : "Your ticket carries no privilege.",
      held.map((name, index) => [index > 0 && ", ", h("code", {}, name)]));
  }
  const wait = Number(reply.headers.find(([name]) => name.toLowerCase() === "retry-after")?.[1]);
  if (wait > 0) parts.push(parts.length > 0 && " ", `Try again in ${durationText(wait)}.`);
  return parts.length > 0 && h("p", { class: "advice" }, parts);
}
