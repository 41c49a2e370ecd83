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
  collect(schema, resolve, [schema], rows);
  if (rows.length === 0) {
    const limits = limitsText(schema, resolve);
    return h("p", { class: "muted" }, [typeText(schema, resolve), ...limits].join(", "));
  }
  return h("dl", { class: "schema" }, rows);
}

/** @param {any[]} path the schema that the members are of, and those around it */
function collect(schema, resolve, path, rows) {
  const depth = path.length - 1;
  for (const member of members(schema, resolve)) {
    if (rows.length >= MAX_ROWS) return;
    const again = path.includes(member.schema);
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
          again && h("span", { class: "limits" }, "as above"),
          !again && typeof description === "string" && h("span", { class: "about" }, inline(description)),
        ),
      ),
    );
    if (depth < MAX_DEPTH && !again) collect(member.schema, resolve, [...path, member.schema], rows);
  }
}
