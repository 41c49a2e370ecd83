// The form for the parameters of an operation, and what was put into it.

import { fill, h } from "./dom.js";
import { example, limitsText, typeText } from "./schema.js";
import { inline } from "./text.js";

/** @typedef {import("./openapi.js").Parameter} Parameter */

/** One parameter's value, as text or as pairs. @typedef {string | [string, string][]} Value */

/**
 * @param {Parameter[]} parameters
 * @param {import("./schema.js").Resolve} resolve
 * @param {Map<string, Value>} values filled in and kept up to date
 * @param {() => void} changed
 */
export function parameterForm(parameters, resolve, values, changed) {
  return h("div", { class: "parameters" }, parameters.map((one) => parameterRow(one, resolve, values, changed)));
}

/** @param {Parameter} parameter */
export function keyOf(parameter) {
  return `${parameter.where} ${parameter.name}`;
}

function parameterRow(parameter, resolve, values, changed) {
  const id = `p-${parameter.where}-${parameter.name}`.replace(/[^\w-]/g, (one) => `_${one.charCodeAt(0)}`);
  const key = keyOf(parameter);
  const type = typeText(parameter.schema, resolve);
  if (isFree(parameter, type)) {
    if (!Array.isArray(values.get(key))) values.set(key, [["", ""]]);
    return h("div", { class: "parameter" }, describe(parameter, "any name and value", null, resolve),
      pairs(/** @type {[string, string][]} */ (values.get(key)), parameter.name, changed));
  }
  if (!values.has(key)) values.set(key, start(parameter, resolve));
  const field = control(parameter, type, resolve, id, String(values.get(key)));
  field.addEventListener("input", () => {
    values.set(key, /** @type {HTMLInputElement} */ (field).value);
    field.removeAttribute("aria-invalid");
    changed();
  });
  return h("div", { class: "parameter" }, describe(parameter, type, id, resolve), field);
}

function describe(parameter, type, id, resolve) {
  const name = h("code", {}, parameter.name);
  const star = parameter.required && h("abbr", { class: "required", title: "required" }, "*");
  const limits = [type, ...limitsText(parameter.schema, resolve)].join(", ");
  return h("div", { class: "what" },
    id ? h("label", { for: id }, name, star) : h("span", {}, name, star),
    h("span", { class: "where" }, parameter.where),
    h("p", { class: "muted", id: id && `${id}-about` }, limits, parameter.description && [". ", inline(parameter.description)]));
}

function control(parameter, type, resolve, id, value) {
  const common = { id, "data-key": keyOf(parameter), "aria-describedby": `${id}-about`, required: parameter.required };
  const choices = choicesOf(parameter.schema, type);
  if (choices) {
    const options = choices.map((one) => h("option", { value: one, selected: one === value }, one));
    return h("select", common, !parameter.required && h("option", { value: "", selected: value === "" }, "—"), options);
  }
  if (type.startsWith("array")) {
    const area = /** @type {HTMLTextAreaElement} */ (
      h("textarea", { ...common, rows: 2, spellcheck: "false", placeholder: "one per line" }));
    area.value = value;
    return area;
  }
  const numeric = /^(integer|number)\b/.test(type);
  const field = /** @type {HTMLInputElement} */ (
    h("input", { ...common, type: "text", inputmode: numeric ? "decimal" : null, autocomplete: "off", spellcheck: "false" }));
  field.value = value;
  return field;
}

/**
 * Objects become name and value, as many as one likes.
 * @param {[string, string][]} list changed in place
 * @param {string} label
 * @param {() => void} changed
 */
export function pairs(list, label, changed) {
  const place = h("div", { class: "pairs" });
  const field = (pair, index, what) => {
    const input = /** @type {HTMLInputElement} */ (
      h("input", { type: "text", "aria-label": `${label}: ${what}`, placeholder: what, autocomplete: "off", spellcheck: "false" }));
    input.value = pair[index];
    input.addEventListener("input", () => {
      pair[index] = input.value;
      changed();
    });
    return input;
  };
  const draw = () =>
    fill(place,
      list.map((pair) =>
        h("div", { class: "row" }, field(pair, 0, "name"), field(pair, 1, "value"),
          h("button", { type: "button", class: "quiet small", "aria-label": `Remove ${pair[0] || "this line"}`, onclick: () => remove(pair) }, "✕"))),
      h("button", { type: "button", class: "link", onclick: add }, "Add a line"));
  const add = () => {
    list.push(["", ""]);
    draw();
    /** @type {HTMLElement} */ (place.querySelector(".row:last-of-type input")).focus();
  };
  const remove = (pair) => {
    list.splice(list.indexOf(pair), 1);
    draw();
    place.querySelector("button")?.focus();
    changed();
  };
  draw();
  return place;
}

/** @param {Parameter} parameter @param {string} type */
function isFree(parameter, type) {
  return type.startsWith("object") && !parameter.json && parameter.where === "query";
}

function choicesOf(schema, type) {
  if (Array.isArray(schema?.enum) && !type.startsWith("array")) return schema.enum.map(String);
  return type === "boolean" ? ["true", "false"] : null;
}

function start(parameter, resolve) {
  const given = parameter.example ?? (parameter.required ? example(parameter.schema, resolve) : undefined);
  if (given === undefined || given === null) return "";
  if (Array.isArray(given)) return given.map(String).join("\n");
  if (given === 0 && parameter.schema?.default !== 0) return "";
  return typeof given === "object" ? JSON.stringify(given) : String(given);
}
