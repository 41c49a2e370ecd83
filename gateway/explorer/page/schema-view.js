// A schema as a table of its members, nested ones indented.

import { h } from "./dom.js";
import { limitsText, members, typeText } from "./schema.js";
import { inline } from "./text.js";

const MAX_DEPTH = 5;
const MAX_ROWS = 300;

/**
 * @param {any} schema
 * @param {import("./schema.js").Resolve} resolve
 * @returns {HTMLElement}
 */
export function schemaView(schema, resolve) {
  const rows = [];
  collect(schema, resolve, 0, rows);
  if (rows.length === 0) {
    const limits = limitsText(schema, resolve);
    return h("p", { class: "muted" }, [typeText(schema, resolve), ...limits].join(", "));
  }
  return h("dl", { class: "schema" }, rows);
}

function collect(schema, resolve, depth, rows) {
  for (const member of members(schema, resolve)) {
    if (rows.length >= MAX_ROWS) return;
    const notes = limitsText(member.schema, resolve);
    const description = member.schema?.description;
    rows.push(
      h(
        "div",
        { class: `depth-${depth}` },
        h(
          "dt",
          {},
          h("code", {}, member.name),
          member.required && h("abbr", { class: "required", title: "required" }, "*"),
        ),
        h(
          "dd",
          {},
          h("span", { class: "type" }, typeText(member.schema, resolve)),
          notes.length > 0 && h("span", { class: "limits" }, notes.join(", ")),
          typeof description === "string" && h("span", { class: "about" }, inline(description)),
        ),
      ),
    );
    if (depth < MAX_DEPTH) collect(member.schema, resolve, depth + 1, rows);
  }
}
