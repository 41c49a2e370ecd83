// What a JSON schema says, in words and as an example. Pure. Schemas come from services: they may
// refer to themselves, be nested without end, or be no schemas at all.

const MAX_DEPTH = 8;
const MAX_MEMBERS = 200;
const MAX_VISITS = 400; // schemas looked at for one answer; ten that each hold all ten have no end

/** @typedef {(node: any) => any} Resolve */

class Walk {
  /** @param {Resolve} resolve */
  constructor(resolve) {
    this.resolve = resolve;
    this.left = MAX_VISITS;
  }

  /** Whether one may go on. @param {number} depth */
  may(depth) {
    return depth <= MAX_DEPTH && this.left-- > 0;
  }
}

/**
 * The schema with references followed and `allOf` joined.
 * @param {any} schema
 * @param {Walk} walk
 * @param {number} [depth]
 * @returns {Record<string, any>}
 */
function flat(schema, walk, depth = 0) {
  const found = walk.resolve(schema);
  if (found === null || typeof found !== "object" || Array.isArray(found)) return {};
  if (!Array.isArray(found.allOf)) return found;
  let { allOf, ...joined } = found;
  for (const part of allOf) {
    if (!walk.may(depth)) break;
    const other = flat(part, walk, depth + 1);
    const properties = { ...other.properties, ...joined.properties };
    const required = [...array(other.required), ...array(joined.required)];
    joined = { ...other, ...joined, required };
    if (Object.keys(properties).length) joined.properties = properties;
  }
  return joined;
}

/**
 * The type in a few words: `array of string`, `integer or null`.
 * @param {any} schema
 * @param {Resolve} resolve
 * @returns {string}
 */
export function typeText(schema, resolve) {
  return typeOf(schema, new Walk(resolve), 0);
}

function typeOf(schema, walk, depth) {
  if (schema === false) return "nothing";
  if (!walk.may(depth)) return "…";
  const one = flat(schema, walk);
  if (one.const !== undefined) return JSON.stringify(one.const);
  const choices = array(one.oneOf ?? one.anyOf);
  if (choices.length) {
    const names = choices.slice(0, 6).map((choice) => typeOf(choice, walk, depth + 1));
    return [...new Set(names)].join(" or ");
  }
  const names = typesOf(one).map((type) => {
    if (type === "array" && one.items !== undefined) return `array of ${typeOf(one.items, walk, depth + 1)}`;
    return type === "string" && one.format ? `string, ${one.format}` : type;
  });
  return names.join(" or ") || "any";
}

/**
 * Everything else that the schema demands, one short text each.
 * @param {any} schema
 * @param {Resolve} resolve
 * @returns {string[]}
 */
export function limitsText(schema, resolve) {
  const one = flat(schema, new Walk(resolve));
  const said = [];
  if (Array.isArray(one.enum)) said.push(`one of ${one.enum.slice(0, 20).map(literal).join(", ")}`);
  if (one.minimum !== undefined) said.push(`≥ ${one.minimum}`);
  if (one.exclusiveMinimum !== undefined) said.push(`> ${one.exclusiveMinimum}`);
  if (one.maximum !== undefined) said.push(`≤ ${one.maximum}`);
  if (one.exclusiveMaximum !== undefined) said.push(`< ${one.exclusiveMaximum}`);
  if (one.multipleOf !== undefined) said.push(`multiple of ${one.multipleOf}`);
  said.push(...range(one.minLength, one.maxLength, "character"));
  said.push(...range(one.minItems, one.maxItems, "item"));
  if (one.uniqueItems === true) said.push("no item twice");
  if (typeof one.pattern === "string") said.push(`matches ${one.pattern}`);
  if (one.default !== undefined) said.push(`default ${literal(one.default)}`);
  return said;
}

function range(least, most, what) {
  if (least === undefined && most === undefined) return [];
  const many = (count) => `${count} ${what}${count === 1 ? "" : "s"}`;
  if (most === undefined) return [`at least ${many(least)}`];
  if (least === undefined) return [`at most ${many(most)}`];
  return [least === most ? many(most) : `${least} to ${many(most)}`];
}

/**
 * The members of an object, or of the items of an array.
 * @param {any} schema
 * @param {Resolve} resolve
 * @returns {{name: string, schema: any, required: boolean}[]}
 */
export function members(schema, resolve) {
  return membersOf(schema, new Walk(resolve));
}

function membersOf(schema, walk) {
  let one = flat(schema, walk);
  for (let depth = 0; depth < MAX_DEPTH && one.items !== undefined && !one.properties; depth++) {
    one = flat(one.items, walk);
  }
  const required = array(one.required);
  return Object.entries(one.properties ?? {})
    .slice(0, MAX_MEMBERS)
    .map(([name, member]) => ({ name, schema: walk.resolve(member), required: required.includes(name) }));
}

/**
 * A value that one can start from.
 * @param {any} schema
 * @param {Resolve} resolve
 * @returns {any}
 */
export function example(schema, resolve) {
  return exampleOf(schema, new Walk(resolve), 0);
}

function exampleOf(schema, walk, depth) {
  if (!walk.may(depth)) return null;
  const one = flat(schema, walk);
  for (const given of [one.example, array(one.examples)[0], one.default, one.const, array(one.enum)[0]]) {
    if (given !== undefined) return given;
  }
  const choice = array(one.oneOf ?? one.anyOf)[0];
  if (choice !== undefined) return exampleOf(choice, walk, depth + 1);
  return byType(one, walk, depth);
}

function byType(one, walk, depth) {
  switch (typesOf(one)[0]) {
    case "array":
      return one.items === undefined ? [] : [exampleOf(one.items, walk, depth + 1)];
    case "string":
      return "";
    case "integer":
    case "number":
      return one.minimum ?? 0;
    case "boolean":
      return false;
    case "null":
      return null;
    default:
      return objectOf(membersOf({ ...one, items: undefined }, walk), walk, depth);
  }
}

/** What is required, and what comes with a value of its own: an empty text for the rest would only
 * be refused. Where nothing is required, all of the outermost. */
function objectOf(found, walk, depth) {
  const all = depth === 0 && !found.some((member) => member.required);
  const wanted = found.filter(({ required, schema }) => all || required || bringsValue(schema));
  return Object.fromEntries(wanted.map(({ name, schema }) => [name, exampleOf(schema, walk, depth + 1)]));
}

function bringsValue(schema) {
  const given = schema ?? {};
  return [given.example, array(given.examples)[0], given.default, given.const].some((value) => value !== undefined);
}

/** The types that one names, or shows by what else it has. */
function typesOf(one) {
  if (typeof one.type === "string") return [one.type];
  if (Array.isArray(one.type)) return one.type.map(String);
  if (one.properties) return ["object"];
  return one.items === undefined ? [] : ["array"];
}

function literal(value) {
  return typeof value === "string" ? value : JSON.stringify(value);
}

function array(value) {
  return Array.isArray(value) ? value : [];
}
