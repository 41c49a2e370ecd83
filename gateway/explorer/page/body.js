// The editor for the body of a request, with what is known of its form beside it.

import { fill, h } from "./dom.js";
import { jsonView } from "./json-view.js";
import { example } from "./schema.js";
import { schemaView } from "./schema-view.js";
import { inline } from "./text.js";

/**
 * @param {import("./openapi.js").Operation} operation
 * @param {import("./action.js").Draft} draft where the text is kept, by content type
 * @param {import("./schema.js").Resolve} resolve
 * @param {() => void} changed
 */
export function bodyEditor(operation, draft, resolve, changed) {
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
    if (!draft.bodies.has(draft.type)) draft.bodies.set(draft.type, prefilled(chosen, resolve));
    area.value = draft.bodies.get(draft.type) ?? "";
    area.rows = Math.min(24, Math.max(6, area.value.split("\n").length + 1));
    format.hidden = !isJsonType(draft.type);
    fill(side, saysNothing(chosen.schema)
      ? h("p", { class: "muted" }, "The service does not describe its body.")
      : schemaView(chosen.schema, resolve));
    note.textContent = isJsonType(draft.type) ? complaint(area.value) : "";
  };
  function tidy() {
    try {
      JSON.parse(area.value);
      area.value = jsonView(area.value).textContent ?? ""; // unlike stringify, it leaves numbers alone
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

function saysNothing(schema) {
  return schema === undefined || schema === true || Object.keys(schema ?? {}).length === 0;
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
