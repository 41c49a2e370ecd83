// Follows a stream of events as EventSource does, but with a ticket in the header.

import { SseParser } from "./sse.js";
import { ticket } from "./ticket.js";

const FIRST_WAIT = 1000; // ms
const LONGEST_WAIT = 30_000; // ms
const SILENCE = 120_000; // ms without a byte, not even a comment: the connection is dead

/**
 * @typedef {{state: "connecting" | "open" | "waiting" | "ended", detail: string, wait?: number}} Connection
 */

/**
 * Follow until `signal` is aborted or there is no sense in going on.
 * @param {URL} url
 * @param {AbortSignal} signal
 * @param {(event: import("./sse.js").SseEvent) => "end" | void} onEvent "end": do not come back
 * @param {(connection: Connection) => void} onState
 */
export async function follow(url, signal, onEvent, onState) {
  let failures = 0;
  let lastId = "";
  let base = FIRST_WAIT;
  while (!signal.aborted) {
    onState({ state: "connecting", detail: "" });
    let detail = "The stream ended.";
    let wait = 0;
    try {
      const response = await open(url, signal, lastId);
      if (!response.ok || response.body === null || response.status === 204) {
        const refusal = await refusalOf(response);
        if (refusal.final) return onState({ state: "ended", detail: refusal.detail });
        detail = refusal.detail;
        wait = refusal.wait;
      } else {
        onState({ state: "open", detail: "" });
        const parser = new SseParser();
        parser.lastId = lastId;
        const over = await readEvents(response.body, parser, signal, (event) => {
          failures = 0;
          return onEvent(event);
        });
        lastId = parser.lastId;
        base = parser.retry ?? base;
        if (over) return onState({ state: "ended", detail: "" });
      }
    } catch (error) {
      if (signal.aborted) break;
      detail = error instanceof RangeError ? error.message : "The connection broke.";
    }
    const grown = Math.min(LONGEST_WAIT, base * 2 ** Math.min(failures++, 10));
    wait = Math.max(wait, grown * (0.5 + Math.random() / 2));
    onState({ state: "waiting", detail, wait });
    await pause(wait, signal);
  }
  onState({ state: "ended", detail: "" });
}

function open(url, signal, lastId) {
  const headers = { Accept: "text/event-stream", ...ticket.headers() };
  if (lastId) headers["Last-Event-ID"] = lastId;
  return fetch(url, { headers, credentials: ticket.credentials, cache: "no-store", signal });
}

async function refusalOf(response) {
  if (response.status === 204) return { final: true, detail: "The gateway has nothing to say here.", wait: 0 };
  const problem = await response.json().catch(() => ({}));
  const said = problem?.detail ?? problem?.title ?? response.statusText;
  const again = [408, 429].includes(response.status) || response.status >= 500;
  const wait = Number(response.headers.get("Retry-After")) * 1000 || 0;
  return { final: !again, detail: `${response.status}: ${said}`, wait };
}

/** @returns {Promise<boolean>} whether `onEvent` wants no more */
async function readEvents(body, parser, signal, onEvent) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let silence = 0;
  try {
    for (;;) {
      silence = setTimeout(() => void reader.cancel().catch(() => {}), SILENCE);
      const { done, value } = await reader.read();
      clearTimeout(silence);
      if (done || signal.aborted) return false;
      for (const event of parser.feed(value)) if (onEvent(event) === "end") return true;
    }
  } finally {
    clearTimeout(silence);
    reader.cancel().catch(() => {});
  }
}

function pause(ms, signal) {
  return new Promise((resolve) => {
    const over = () => {
      clearTimeout(timer);
      signal.removeEventListener("abort", over);
      resolve(undefined);
    };
    const timer = setTimeout(over, ms);
    signal.addEventListener("abort", over);
  });
}
