// Sends a call and reads the reply piece by piece, so that a large one can be watched, stopped and
// told apart from one that was broken off.

import { ticket } from "./ticket.js";

/** Bytes of a reply that are kept. Beyond it reading ends; curl is the tool then. */
export const MAX_KEPT = 64 * 1024 * 1024;

/**
 * @typedef {{status: number, statusText: string, headers: [string, string][], type: string,
 *   chunks: Uint8Array[], size: number, headMs: number, totalMs: number,
 *   end: "whole" | "broken" | "cancelled" | "too large", why: string}} Reply
 */

/**
 * @param {import("./request.js").Call} call
 * @param {AbortSignal} signal
 * @param {(size: number) => void} progress
 * @returns {Promise<Reply>}
 * @throws {RangeError} when it cannot be sent; TypeError when there is no reply at all; AbortError
 *   when cancelled before it
 */
export async function send(call, signal, progress) {
  const headers = headersOf(call);
  const started = performance.now();
  const response = await fetch(call.url, {
    method: call.method,
    headers,
    credentials: ticket.credentials,
    body: call.body,
    cache: "no-store",
    signal,
  });
  /** @type {Reply} */
  const reply = {
    status: response.status,
    statusText: response.statusText,
    headers: [...response.headers],
    type: (response.headers.get("Content-Type") ?? "").split(";")[0].trim().toLowerCase(),
    chunks: [],
    size: 0,
    headMs: performance.now() - started,
    totalMs: 0,
    end: "whole",
    why: "",
  };
  try {
    await read(response, reply, progress);
  } catch (error) {
    reply.end = signal.aborted ? "cancelled" : "broken";
    reply.why = String(error?.message ?? error);
  }
  reply.totalMs = performance.now() - started;
  return reply;
}

function headersOf(call) {
  try {
    return new Headers({ ...call.headers, ...ticket.headers() });
  } catch {
    throw new RangeError("a header field has a name or a value that HTTP does not have");
  }
}

async function read(response, reply, progress) {
  if (response.body === null) return;
  const reader = response.body.getReader();
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    reply.chunks.push(value);
    reply.size += value.length;
    progress(reply.size);
    if (reply.size > MAX_KEPT) {
      reply.end = "too large";
      await reader.cancel();
      return;
    }
  }
}

/**
 * The first bytes as text; null when they are none.
 * @param {Reply} reply
 * @param {number} limit
 */
export function beginning(reply, limit) {
  const bytes = new Uint8Array(Math.min(limit, reply.size));
  let at = 0;
  for (const chunk of reply.chunks) {
    if (at === bytes.length) break;
    const part = chunk.subarray(0, bytes.length - at);
    bytes.set(part, at);
    at += part.length;
  }
  if (bytes.includes(0)) return null;
  // `stream`: a character that the limit cuts in two is left out.
  return new TextDecoder().decode(bytes, { stream: true });
}
