// From what was filled in to the request, and to the curl line for it. Pure.

import { keyOf } from "./parameters.js";
import { root } from "./places.js";
import { typeText } from "./schema.js";

/**
 * @typedef {import("./openapi.js").Operation} Operation
 * @typedef {{method: string, url: URL, headers: Record<string, string>, body: string | null}} Call
 */

/**
 * @param {string} path the template
 * @param {Operation} operation
 * @param {Map<string, import("./parameters.js").Value>} values
 * @param {{type: string, text: string} | null} body
 * @param {import("./openapi.js").Described} described
 * @returns {Call}
 */
export function makeCall(path, operation, values, body, described) {
  /** @type {Record<string, string>} */
  const headers = {};
  const query = [];
  let filled = path;
  for (const parameter of operation.parameters) {
    const value = values.get(keyOf(parameter)) ?? "";
    const items = itemsOf(parameter, value, described);
    if (parameter.where === "path") {
      filled = filled.replaceAll(`{${parameter.name}}`, items.map(([, one]) => encodeURIComponent(one)).join(","));
    } else if (parameter.where === "header") {
      if (items.length) headers[parameter.name] = items.map(([, one]) => one).join(",");
    } else {
      query.push(...items.map((pair) => pair.map(encodeURIComponent).join("=")));
    }
  }
  const url = new URL(baseOf(described));
  url.pathname = url.pathname.replace(/\/$/, "") + filled;
  url.search = query.join("&");
  if (body) headers["Content-Type"] = body.type;
  return { method: operation.method, url, headers, body: body ? body.text : null };
}

/** Path parameters that are still empty: they would make another path. */
export function missing(operation, values) {
  return operation.parameters.filter((one) => one.where === "path" && !String(values.get(keyOf(one)) ?? ""));
}

/** Where the document says that the server is, as long as that is here. */
function baseOf(described) {
  try {
    const url = new URL(described.base || "./", new URL("openapi.json", root));
    return url.origin === root.origin ? url : root;
  } catch {
    return root;
  }
}

/** Pairs of name and value. */
function itemsOf(parameter, value, described) {
  if (Array.isArray(value)) {
    const pairs = value.filter(([name]) => name);
    if (parameter.style === "deepObject") return pairs.map(([name, one]) => [`${parameter.name}[${name}]`, one]);
    if (parameter.explode) return pairs;
    return pairs.length ? [[parameter.name, pairs.flat().join(",")]] : [];
  }
  if (value === "") return [];
  if (parameter.json || !typeText(parameter.schema, described.resolve).startsWith("array")) {
    return [[parameter.name, value]];
  }
  const items = value.split("\n").map((one) => one.trim()).filter(Boolean);
  if (parameter.explode && parameter.where === "query") return items.map((one) => [parameter.name, one]);
  const between = { spaceDelimited: " ", pipeDelimited: "|" }[parameter.style] ?? ",";
  return items.length ? [[parameter.name, items.join(between)]] : [];
}

/**
 * The call for a shell. The ticket is not in it: `$TICKET` is.
 * @param {Call} call
 * @param {boolean} withTicket
 */
export function curlLine(call, withTicket) {
  const parts = ["curl -sS"];
  if (call.method === "HEAD") parts[0] += " --head";
  else if (call.method !== (call.body === null ? "GET" : "POST")) parts[0] += ` -X ${call.method}`;
  parts[0] += ` ${quoted(call.url.href)}`;
  if (withTicket) parts.push('-H "Authorization: Bearer $TICKET"');
  for (const [name, value] of Object.entries(call.headers)) parts.push(`-H ${quoted(`${name}: ${value}`)}`);
  if (call.body !== null) parts.push(`--data-raw ${quoted(call.body)}`);
  return parts.join(" \\\n  ");
}

/** @param {string} text */
function quoted(text) {
  return `'${text.replaceAll("'", `'\\''`)}'`;
}
