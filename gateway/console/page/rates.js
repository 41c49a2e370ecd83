// Rates and quantiles from counters that only grow. Nothing here touches the page.

/** Seconds over which rates are taken: short enough to be now, long enough to be calm. */
export const RATE_WINDOW = 3;

/** Seconds over which quantiles are taken: with few requests a second there is little to go by. */
export const QUANTILE_WINDOW = 10;

/** Snapshots that are kept to compare with. */
const MAX_SNAPSHOTS = 16;

/** Seconds after which there is nothing to compare with: an hour that nobody saw is not now. */
const LONGEST_GAP = 15;

/** Seconds by which an answer may be behind the one before: workers keep theirs for a moment. */
const LATE = 5;

/**
 * What was answered lately, to compare the newest answer with.
 */
export class Snapshots {
  constructor() {
    /** @type {any[]} oldest first */
    this.kept = [];
  }

  /**
   * Take another one. Where it does not go on from the last, because the gateway was started anew
   * or one of its workers was, there is nothing to compare with.
   * @param {any} snapshot an answer of `/overview`
   * @returns {boolean} whether it goes on
   */
  push(snapshot) {
    // The same numbers with other rows, or those of a worker that had read them a little earlier.
    while (this.kept.length > 0 && isLate(this.newest.clock - snapshot.clock)) this.kept.pop();
    const last = this.kept.at(-1);
    const goesOn = last !== undefined && continues(last, snapshot);
    if (!goesOn) this.kept = [];
    this.kept.push(snapshot);
    if (this.kept.length > MAX_SNAPSHOTS) this.kept.shift();
    return goesOn;
  }

  /** @returns {any} */
  get newest() {
    return this.kept.at(-1);
  }

  /**
   * The one that is `seconds` older than the newest, or the oldest that there is; null when there
   * is only one.
   * @param {number} seconds
   */
  before(seconds) {
    if (this.kept.length < 2) return null;
    const from = this.newest.clock - seconds;
    const older = this.kept.slice(0, -1);
    return older.filter((one) => one.clock <= from + 0.25).at(-1) ?? older[0];
  }

  /**
   * By how much a number grew in a second; null when nobody can tell.
   * @param {(snapshot: any) => number | undefined} pick
   * @param {number} [window]
   */
  rate(pick, window = RATE_WINDOW) {
    const before = this.before(window);
    if (before === null) return null;
    const now = pick(this.newest) ?? 0;
    const then = pick(before);
    if (then === undefined || now < then) return null;
    return (now - then) / (this.newest.clock - before.clock);
  }

  /**
   * What fell into each bucket within a while; null when nobody can tell.
   * @param {(snapshot: any) => number[] | undefined} pick
   * @param {number} [window]
   */
  buckets(pick, window = QUANTILE_WINDOW) {
    const before = this.before(window);
    const now = pick(this.newest);
    if (before === null || !now) return null;
    const then = pick(before) ?? [];
    return now.map((count, at) => Math.max(0, count - (then[at] ?? 0)));
  }
}

/** @param {number} behind seconds */
export function isLate(behind) {
  return behind >= 0 && behind < LATE;
}

/** @param {any} last @param {any} next */
function continues(last, next) {
  const same = next.gateway.started === last.gateway.started && String(next.counted_by) === String(last.counted_by);
  return same && next.clock > last.clock && next.clock - last.clock < LONGEST_GAP && answered(next) >= answered(last);
}

/** @param {any} snapshot */
export function answered(snapshot) {
  let sum = 0;
  for (const count of Object.values(snapshot.responses)) sum += /** @type {number} */ (count);
  return sum;
}

/**
 * Requests answered with a status class (`5xx`), and by whom (`gateway`, `service`) when given.
 * @param {any} snapshot @param {string} statusClass @param {string} [source]
 */
export function responses(snapshot, statusClass, source) {
  let sum = 0;
  for (const [key, count] of Object.entries(snapshot.responses)) {
    const [is, by] = key.split(" ");
    if (is === statusClass && (source === undefined || by === source)) sum += /** @type {number} */ (count);
  }
  return sum;
}

/**
 * In seconds, by straight lines within a bucket; null when nothing was measured. What lies beyond
 * the last bound is infinite.
 * @param {number[] | null} counts @param {number[]} bounds @param {number} part
 */
export function quantile(counts, bounds, part) {
  if (counts === null) return null;
  const total = counts.reduce((sum, count) => sum + count, 0);
  if (total === 0) return null;
  let below = 0;
  for (let at = 0; at < counts.length; at++) {
    const count = counts[at];
    if (count > 0 && below + count >= part * total) {
      if (at >= bounds.length) return Infinity;
      const low = at === 0 ? 0 : bounds[at - 1];
      return low + (bounds[at] - low) * ((part * total - below) / count);
    }
    below += count;
  }
  return Infinity;
}
