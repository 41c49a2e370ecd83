// The list of actions: grouped, filtered, and gone through with the arrow keys.

import { fill, h } from "./dom.js";
import { fragmentFor } from "./places.js";
import { counted } from "./text.js";

/**
 * @typedef {import("./openapi.js").Described} Described
 * @typedef {import("./openapi.js").Entry} Entry
 */

const MAX_SHOWN = 2000; // rows; the filter finds the others

export class ActionList {
  #input;
  #count;
  #place;
  /** @type {Described | null} */
  #described = null;
  #current = "";

  /**
   * @param {HTMLInputElement} input
   * @param {HTMLElement} count
   * @param {HTMLElement} place
   */
  constructor(input, count, place) {
    this.#input = input;
    this.#count = count;
    this.#place = place;
    input.addEventListener("input", () => this.#draw());
    input.addEventListener("keydown", (event) => this.#onInputKey(event));
    place.addEventListener("keydown", (event) => this.#onListKey(event));
    document.addEventListener("keydown", (event) => {
      if (event.key !== "/" || event.ctrlKey || event.metaKey || event.altKey || isWriting(event.target)) return;
      if (!input.checkVisibility()) return;
      event.preventDefault();
      input.focus();
      input.select();
    });
  }

  /** @param {Described} described */
  show(described) {
    this.#described = described;
    this.#draw();
  }

  /** Mark the one that is shown. @param {string} key */
  mark(key) {
    this.#current = key;
    for (const link of this.#links()) this.#markLink(link);
    this.#oneTabStop();
    this.#place.querySelector("[aria-current]")?.scrollIntoView({ block: "nearest" });
  }

  #draw() {
    const described = this.#described;
    if (described === null) return;
    const words = this.#input.value.toLowerCase().split(/\s+/).filter(Boolean);
    let shown = 0;
    const groups = described.groups.map((group) => {
      const entries = group.entries.filter((entry) => fits(entry, words));
      const room = Math.max(0, MAX_SHOWN - shown);
      shown += entries.length;
      if (entries.length === 0 || room === 0) return null;
      const id = `group-${described.groups.indexOf(group)}`;
      return h("section", { "aria-labelledby": id },
        h("h2", { id, title: group.description || null }, group.name),
        h("ul", {}, entries.slice(0, room).map((entry) => h("li", {}, this.#link(entry)))));
    });
    const total = described.entries.size;
    this.#count.textContent = words.length ? `${shown} of ${counted(total, "action")}` : counted(total, "action");
    fill(this.#place, groups, shown === 0 && this.#nothing(total),
      shown > MAX_SHOWN && h("p", { class: "empty" }, `${shown - MAX_SHOWN} more: filter to see them.`));
    this.#oneTabStop();
  }

  #nothing(total) {
    if (total === 0) return h("p", { class: "empty" }, "Nothing is announced, or nothing for this ticket.");
    return h("p", { class: "empty" }, "No action fits. ",
      h("button", { type: "button", class: "link", onclick: () => this.#clear() }, "Clear the filter"));
  }

  #link(entry) {
    const first = preferred(entry);
    const link = h("a", { href: fragmentFor(entry.key), "data-key": entry.key },
      methodBadge(first.method),
      h("span", { class: "words" },
        h("span", { class: "name" }, breakable(entry.short)),
        h("span", { class: "flags" }, first.flags.join(" "))));
    if (first.deprecated) link.classList.add("deprecated");
    this.#markLink(link);
    return link;
  }

  #markLink(link) {
    if (link.dataset.key === this.#current) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }

  /** Tab enters the list once; the arrow keys go on from there. */
  #oneTabStop() {
    const links = this.#links();
    const stop = links.find((link) => link.hasAttribute("aria-current")) ?? links[0];
    for (const link of links) link.tabIndex = link === stop ? 0 : -1;
  }

  #links() {
    return /** @type {HTMLElement[]} */ ([...this.#place.querySelectorAll("a")]);
  }

  #clear() {
    this.#input.value = "";
    this.#draw();
    this.#input.focus();
  }

  #onInputKey(event) {
    if (event.key === "Escape" && this.#input.value) {
      event.preventDefault();
      this.#clear();
    } else if (event.key === "ArrowDown") {
      event.preventDefault();
      this.#links()[0]?.focus();
    } else if (event.key === "Enter") {
      event.preventDefault();
      this.#links()[0]?.click();
    }
  }

  #onListKey(event) {
    const links = this.#links();
    const at = links.indexOf(event.target.closest("a"));
    const to = { ArrowDown: at + 1, ArrowUp: at - 1, Home: 0, End: links.length - 1 }[event.key];
    if (event.key === "Escape" || to === -1) {
      event.preventDefault();
      this.#input.focus();
    } else if (to !== undefined && links[to]) {
      event.preventDefault();
      links[to].focus();
    }
  }
}

/**
 * The operation that one looks at first: reading where the action reads.
 * @param {Entry} entry
 */
export function preferred(entry) {
  // POST last: every action takes it, so it says least.
  const order = ["GET", "PATCH", "PUT", "DELETE", "POST"];
  return order.map((method) => entry.operations.find((one) => one.method === method)).find(Boolean) ?? entry.operations[0];
}

/** @param {string} method */
export function methodBadge(method) {
  return h("span", { class: "method", "data-method": method }, method === "DELETE" ? "DEL" : method === "OPTIONS" ? "OPT" : method);
}

/** Long names break after dots and slashes, and before capitals. @param {string} name */
export function breakable(name) {
  return name.split(/(?<=[./:])|(?<=[a-z0-9])(?=[A-Z])/).flatMap((part, index) => (index ? [h("wbr"), part] : [part]));
}

function fits(entry, words) {
  const text = [entry.name, entry.path, ...entry.operations.flatMap((one) => [one.method, one.summary, one.action, ...one.flags])]
    .join(" ")
    .toLowerCase();
  return words.every((word) => text.includes(word));
}

function isWriting(target) {
  return target instanceof Element && target.closest("input, textarea, select, dialog") !== null;
}
