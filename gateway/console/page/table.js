// A table whose rows stay where they are while their numbers change. On a narrow screen each row
// folds into a block, where every cell says what it is.

import { h } from "./dom.js";

/**
 * @typedef {object} Cell
 * @property {string} text
 * @property {string} [kind] a word for the style
 * @property {string} [title]
 */

/**
 * @typedef {object} Column
 * @property {string} label
 * @property {string} [style] classes: `number`, `wide`, `name`
 * @property {(row: any) => string | Cell} cell
 */

/** A card with a heading, a table, and how many more there are. */
export class Table {
  /**
   * @param {HTMLElement} card an empty section
   * `hidden` says where those are that are not shown.
   * @param {{title: string, empty: string, hidden?: string, columns: Column[], key: (row: any) => string, kind?: (row: any) => string}} options
   */
  constructor(card, options) {
    this.options = options;
    /** @type {Map<string, HTMLElement>} */
    this.rows = new Map();
    this.summary = h("p", { class: "summary" });
    this.body = h("tbody", { role: "rowgroup" });
    const heads = options.columns.map((column) => h("th", { scope: "col", role: "columnheader", class: column.style }, column.label));
    this.table = h("table", { role: "table", "aria-labelledby": `${card.id}-title`, class: "folding" },
      h("thead", { role: "rowgroup" }, h("tr", { role: "row" }, heads)), this.body);
    this.empty = h("p", { class: "empty" }, options.empty);
    this.more = h("p", { class: "more", hidden: true });
    card.append(h("div", { class: "head" }, h("h2", { id: `${card.id}-title` }, options.title), this.summary), this.table, this.empty, this.more);
  }

  /**
   * @param {any[]} rows in order
   * @param {{more?: number, summary?: string, empty?: string}} [about]
   */
  show(rows, { more = 0, summary = "", empty = this.options.empty } = {}) {
    const { key, kind } = this.options;
    const names = new Set(rows.map(key));
    for (const [name, line] of this.rows) {
      if (names.has(name)) continue;
      this.rows.delete(name);
      line.remove();
    }
    let place = this.body.firstElementChild;
    for (const row of rows) {
      const name = key(row);
      let line = this.rows.get(name);
      if (line === undefined) {
        line = this.line();
        this.rows.set(name, line);
      }
      this.write(line, row, kind?.(row) ?? "");
      // A row that is moved loses what is marked in it: the one that goes down moves, not all below.
      if (line !== place && line === place?.nextElementSibling) {
        place.remove();
        place = line;
      }
      if (line === place) place = line.nextElementSibling;
      else this.body.insertBefore(line, place);
    }
    this.table.hidden = rows.length === 0;
    this.empty.hidden = rows.length > 0;
    this.empty.textContent = empty;
    this.more.hidden = more === 0;
    this.more.textContent = more === 0 ? "" : `and ${more} more; ${this.options.hidden ?? "a filter shows them"}`;
    this.summary.textContent = summary;
  }

  line() {
    return h("tr", { role: "row" }, this.options.columns.map((column) =>
      h("td", { role: "cell", class: column.style, "data-label": column.label }, h("span"))));
  }

  /** @param {HTMLElement} line @param {any} row @param {string} kind */
  write(line, row, kind) {
    line.dataset.kind = kind;
    this.options.columns.forEach((column, at) => {
      const given = column.cell(row);
      const cell = typeof given === "string" ? { text: given } : given;
      const place = /** @type {HTMLElement} */ (line.children[at]);
      const inner = /** @type {HTMLElement} */ (place.firstElementChild);
      if (inner.textContent !== cell.text) inner.textContent = cell.text;
      if ((inner.dataset.kind ?? "") !== (cell.kind ?? "")) inner.dataset.kind = cell.kind ?? "";
      if (inner.title !== (cell.title ?? "")) inner.title = cell.title ?? "";
      place.toggleAttribute("data-blank", cell.text === "");
    });
  }
}
