// JSON indented for reading, from its text: numbers stay as they were sent, however large, and what
// was broken off is shown as far as it came.

import { h } from "./dom.js";

const TOKENS = /"(?:[^"\\]|\\[^])*"?|[{}[\],:]|[^\s{}[\],:"]+/g;
const MAX_INDENT = 40; // levels; 64 KB of brackets would become gigabytes of blanks

/**
 * @param {string} text
 * @returns {DocumentFragment}
 */
export function jsonView(text) {
  const tokens = text.match(TOKENS) ?? [];
  const made = document.createDocumentFragment();
  let depth = 0;
  let plain = "";
  const line = () => `\n${"  ".repeat(Math.min(depth, MAX_INDENT))}`;
  tokens.forEach((token, index) => {
    const next = tokens[index + 1];
    if (token === "{" || token === "[") {
      depth += 1;
      plain += token + (next === "}" || next === "]" ? "" : line());
    } else if (token === "}" || token === "]") {
      depth = Math.max(0, depth - 1);
      const before = tokens[index - 1];
      plain += (before === "{" || before === "[" ? "" : line()) + token;
    } else if (token === ",") {
      plain += token + line();
    } else if (token === ":") {
      plain += ": ";
    } else {
      made.append(plain, h("span", { class: kindOf(token, next) }, token));
      plain = "";
    }
  });
  made.append(plain);
  return made;
}

function kindOf(token, next) {
  if (token.startsWith('"')) return next === ":" ? "json-key" : "json-string";
  return /^[-\d]/.test(token) ? "json-number" : "json-word";
}
