// An OpenAPI document, read into what is listed and tried. Pure. Whatever is odd in the document
// is left out or shown as it is; it never fails for it.

const METHODS = ["get", "post", "put", "patch", "delete", "head", "options"];
const MAX_REFERENCES = 20;

/**
 * @typedef {Record<string, any>} Json
 * @typedef {{name: string, where: string, required: boolean, description: string, schema: any,
 *   example: any, style: string, explode: boolean, json: boolean}} Parameter
 * @typedef {{required: boolean, description: string, types: {type: string, schema: any, example: any}[]}} Body
 * @typedef {{method: string, tag: string, summary: string, description: string, deprecated: boolean,
 *   parameters: Parameter[], body: Body | null, ticket: "required" | "optional" | "none",
 *   replies: {status: string, description: string}[], flags: string[], timeout: number | null,
 *   retry: any, action: string}} Operation
 * @typedef {{key: string, name: string, short: string, path: string, group: string,
 *   operations: Operation[]}} Entry
 * @typedef {{title: string, description: string, cookie: boolean, base: string,
 *   groups: {name: string, description: string, entries: Entry[]}[], entries: Map<string, Entry>,
 *   resolve: (node: any) => any}} Described
 */

/**
 * @param {any} doc
 * @returns {Described}
 */
export function readDocument(doc) {
  const whole = object(doc);
  const info = object(whole.info);
  const resolve = resolver(whole);
  const entries = new Map();
  for (const [path, item] of Object.entries(object(whole.paths))) {
    const entry = readPath(path, object(resolve(item)), whole, resolve);
    if (entry !== null) entries.set(entry.key, entry);
  }
  return {
    title: text(info.title),
    description: text(info.description),
    cookie: Object.values(object(object(whole.components).securitySchemes)).some((one) => resolve(one)?.in === "cookie"),
    base: text(object(list(whole.servers)[0]).url),
    groups: grouped(entries, list(whole.tags).map(object)),
    entries,
    resolve,
  };
}

/** By tag, in the order in which the document declares them; then the others by name. */
function grouped(entries, tags) {
  const groups = new Map();
  for (const tag of tags) groups.set(text(tag.name), { name: text(tag.name), description: text(tag.description), entries: [] });
  const others = new Map();
  for (const entry of entries.values()) {
    const found = groups.get(entry.group) ?? others.get(entry.group) ?? { name: entry.group, description: "", entries: [] };
    if (!groups.has(entry.group)) others.set(entry.group, found);
    found.entries.push(entry);
  }
  const sorted = [...others.values()].sort((a, b) => a.name.localeCompare(b.name));
  const all = [...groups.values(), ...sorted].filter((group) => group.entries.length > 0);
  for (const group of all) group.entries.sort((a, b) => a.short.localeCompare(b.short));
  return all;
}

/** @returns {Entry | null} */
function readPath(path, item, doc, resolve) {
  const operations = METHODS.filter((method) => item[method]).map((method) =>
    readOperation(method, object(resolve(item[method])), item, doc, resolve),
  );
  if (operations.length === 0) return null;
  const [first] = operations;
  const native = /^\/api\/([^/]+)$/.exec(path);
  const name = native ? native[1] : path;
  const group = first.tag || "Other";
  const short = name.toLowerCase().startsWith(`${group.toLowerCase()}.`) ? name.slice(group.length + 1) : name;
  return { key: name, name, short, path, group, operations };
}

/** @returns {Operation} */
function readOperation(method, operation, item, doc, resolve) {
  return {
    method: method.toUpperCase(),
    tag: text(list(operation.tags)[0]),
    summary: text(operation.summary) || text(item.summary),
    description: text(operation.description) || text(item.description),
    deprecated: operation.deprecated === true,
    parameters: readParameters([...list(item.parameters), ...list(operation.parameters)], resolve),
    body: readBody(resolve(operation.requestBody), resolve),
    ticket: security(operation.security ?? doc.security),
    replies: Object.entries(object(operation.responses)).map(([status, reply]) => ({
      status,
      description: text(resolve(reply)?.description),
    })),
    flags: flags(operation["x-scamp-flags"]),
    timeout: Number.isFinite(operation["x-scamp-timeout"]) ? operation["x-scamp-timeout"] : null,
    retry: operation["x-scamp-retry"],
    action: text(operation["x-scamp-action"]),
  };
}

/** The operation's own parameters stand in for those of its path. */
function readParameters(given, resolve) {
  const found = new Map();
  for (const one of given) {
    const parameter = object(resolve(one));
    const name = text(parameter.name);
    const where = text(parameter.in);
    if (!name || !["path", "query", "header"].includes(where)) continue;
    if (where === "header" && /^(authorization|accept|content-type|x-scamp-ticket)$/i.test(name)) continue;
    const media = Object.values(object(parameter.content))[0];
    const style = text(parameter.style) || (where === "query" ? "form" : "simple");
    found.set(`${where} ${name}`, {
      name,
      where,
      required: parameter.required === true || where === "path",
      description: text(parameter.description),
      schema: resolve(media?.schema ?? parameter.schema),
      example: firstExample(parameter, resolve) ?? firstExample(object(media), resolve),
      style,
      explode: parameter.explode ?? style === "form",
      json: Boolean(media),
    });
  }
  const order = ["path", "query", "header"];
  return [...found.values()].sort((a, b) => order.indexOf(a.where) - order.indexOf(b.where));
}

/** @returns {Body | null} */
function readBody(body, resolve) {
  if (!body || typeof body !== "object") return null;
  const types = Object.entries(object(body.content)).map(([type, media]) => ({
    type,
    schema: resolve(media?.schema),
    example: firstExample(object(media), resolve),
  }));
  return { required: body.required === true, description: text(body.description), types };
}

function firstExample(holder, resolve) {
  if (holder.example !== undefined) return holder.example;
  return object(resolve(Object.values(object(holder.examples))[0])).value;
}

function security(given) {
  const wanted = list(given);
  if (wanted.length === 0) return "none";
  return wanted.some((one) => Object.keys(object(one)).length === 0) ? "optional" : "required";
}

function flags(given) {
  if (typeof given === "string") return given.split(/[\s,]+/).filter(Boolean);
  return list(given).map(text).filter(Boolean);
}

/**
 * What follows references inside of the document; those to other hosts are never fetched. Members
 * beside a `$ref` count, as 3.1 has it.
 * @param {any} doc
 */
function resolver(doc) {
  return (node) => {
    let found = node;
    let beside = {};
    for (let count = 0; found && typeof found === "object" && typeof found.$ref === "string"; count++) {
      if (count === MAX_REFERENCES) return {};
      const { $ref, ...rest } = found;
      beside = { ...rest, ...beside };
      found = at(doc, $ref);
    }
    if (Object.keys(beside).length === 0) return found;
    return { ...object(found), ...beside };
  };
}

function at(doc, reference) {
  if (reference === "#") return doc;
  if (!reference.startsWith("#/")) return { description: `(see ${reference})` };
  let found = doc;
  for (const part of reference.slice(2).split("/")) {
    const key = unescaped(part).replaceAll("~1", "/").replaceAll("~0", "~");
    found = found !== null && typeof found === "object" && Object.hasOwn(found, key) ? found[key] : undefined;
  }
  return found;
}

function unescaped(part) {
  try {
    return decodeURIComponent(part);
  } catch {
    return part;
  }
}

function object(value) {
  return value !== null && typeof value === "object" && !Array.isArray(value) ? value : {};
}

function list(value) {
  return Array.isArray(value) ? value : [];
}

function text(value) {
  return typeof value === "string" ? value : "";
}
