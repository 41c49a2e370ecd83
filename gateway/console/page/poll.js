// Asks again and again, and less often while nobody answers. Not while nobody looks.

/** Milliseconds between an answer and the next question. */
const INTERVAL = 1000;

/** Milliseconds after which nobody waits for an answer any longer. */
const PATIENCE = 5000;

/** Milliseconds between questions to a gateway that has been silent for long. */
const SLOWEST = 4000;

export class Poll extends EventTarget {
  /** @param {() => URL} where what to ask for, each time */
  constructor(where) {
    super();
    this.where = where;
    this.paused = false;
    this.failures = 0;
    this.asking = false;
    this.number = 0;
    /** @type {number | undefined} */
    this.timer = undefined;
    document.addEventListener("visibilitychange", () => this.now());
  }

  /** Whether there are to be any more questions for now. */
  get resting() {
    return this.paused || document.hidden;
  }

  /** @param {boolean} paused */
  pause(paused) {
    this.paused = paused;
    this.now();
  }

  /** Ask at once, unless it rests. What was asked for before is of no interest any more. */
  now() {
    clearTimeout(this.timer);
    this.number += 1;
    if (!this.resting) void this.ask(this.number);
  }

  /** @param {number} number */
  async ask(number) {
    try {
      const response = await fetch(this.where(), { signal: AbortSignal.timeout(PATIENCE), cache: "no-store" });
      const said = await response.json().catch(() => null);
      if (number !== this.number) return;
      if (!response.ok || said === null) throw new Error(said?.detail ?? `it answers with status ${response.status}`);
      this.failures = 0;
      this.dispatchEvent(new CustomEvent("answer", { detail: said }));
    } catch (error) {
      if (number !== this.number) return;
      this.failures += 1;
      this.dispatchEvent(new CustomEvent("silence", { detail: { reason: reasonOf(error), seconds: this.delay() / 1000 } }));
    }
    if (!this.resting) this.timer = setTimeout(() => this.ask(number), this.delay());
  }

  /** A restart takes a moment: the first try comes soon. */
  delay() {
    return this.failures === 0 ? INTERVAL : Math.min(SLOWEST, 500 * 2 ** Math.min(this.failures - 1, 10));
  }
}

/** @param {any} error */
function reasonOf(error) {
  if (error.name === "TimeoutError") return `no answer within ${PATIENCE / 1000} s`;
  return error instanceof TypeError ? "nothing answers at its address" : error.message;
}
