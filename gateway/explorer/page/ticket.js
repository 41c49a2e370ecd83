// The ticket: in memory, and for this tab beyond a reload only when its owner says so. It leaves
// this module in one place, the Authorization header.

import { root } from "./places.js";

const KEY = "scamp-ticket";

/**
 * @typedef {{user: string, client: string, expires: number | null, privileges: string[]}} Holder
 *   `expires` is in seconds since 1970
 */

/** The ticket in use, and whom the gateway takes its holder for. */
class Ticket extends EventTarget {
  #text = kept();

  /** Known, though no ticket is present, when a cookie has it. @type {Holder | null} */
  holder = null;
  /** What the gateway has against it. */
  refused = "";
  mode = "";

  get present() {
    return this.#text !== "";
  }

  get isKept() {
    return this.present && kept() === this.#text;
  }

  /** @returns {Record<string, string>} */
  headers() {
    return this.present ? { Authorization: `Bearer ${this.#text}` } : {};
  }

  /** A cookie may hold another ticket, and a request with two is refused: this one counts. */
  get credentials() {
    return /** @type {RequestCredentials} */ (this.present ? "omit" : "same-origin");
  }

  /**
   * Use this text from now on; empty: none.
   * @param {string} text
   * @param {boolean} keep beyond a reload of this tab
   */
  use(text, keep) {
    this.#text = text;
    this.holder = null;
    this.refused = "";
    try {
      if (text && keep) sessionStorage.setItem(KEY, text);
      else sessionStorage.removeItem(KEY);
    } catch {
      // Storage is switched off: it holds until the page is left.
    }
    this.dispatchEvent(new Event("changed"));
  }

  /** Ask the gateway who one is. Never fails: not every gateway tells. */
  async ask() {
    const asked = this.#text;
    /** @type {Holder | null} */
    let holder = null;
    let refused = "";
    try {
      const reply = await fetch(new URL("whoami", root), {
        headers: this.headers(),
        credentials: this.credentials,
        cache: "no-store",
      });
      const said = (await reply.json()) ?? {};
      if (reply.ok) {
        this.mode = String(said.mode ?? "");
        holder = holderOf(said.ticket);
      } else if (reply.status === 401 || reply.status === 400) {
        refused = String(said.detail ?? said.title ?? "The gateway does not take it.");
      }
    } catch {
      // Not reachable, or no JSON: what is wrong shows when something is tried.
    }
    if (asked !== this.#text) return;
    this.holder = holder;
    this.refused = refused;
    this.dispatchEvent(new Event("known"));
  }
}

export const ticket = new Ticket();

/**
 * What was pasted, without what people copy along with it.
 * @param {string} pasted
 */
export function cleaned(pasted) {
  return pasted
    .trim()
    .replace(/^(authorization|x-scamp-ticket)\s*:\s*/i, "")
    .replace(/^bearer\s+/i, "")
    .trim();
}

/** @param {string} text */
export function canBeTicket(text) {
  return /^[\x21-\x7e]+$/.test(text);
}

function kept() {
  try {
    return sessionStorage.getItem(KEY) ?? "";
  } catch {
    return "";
  }
}

/** @returns {Holder | null} */
function holderOf(said) {
  if (said === null || typeof said !== "object") return null;
  const privileges = Array.isArray(said.privileges) ? said.privileges : [];
  return {
    user: said.user_id === null || said.user_id === undefined ? "" : String(said.user_id),
    client: said.client_id === null || said.client_id === undefined ? "" : String(said.client_id),
    expires: secondsOf(said.expires_at),
    privileges: privileges.map((one) => String(one?.name ?? one?.id ?? one)),
  };
}

function secondsOf(when) {
  if (typeof when === "number") return when;
  const parsed = typeof when === "string" ? Date.parse(when) : NaN;
  return Number.isNaN(parsed) ? null : parsed / 1000;
}
