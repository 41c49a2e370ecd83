// Figures as they are read at a glance: three digits, and the unit apart.

import { durationText } from "./text.js";

export const NONE = "–";

/** @typedef {{text: string, unit?: string}} Figure */

/** @param {number | null} value @returns {Figure} */
export function count(value) {
  if (value === null) return { text: NONE };
  if (value >= 9_999_500) return { text: (value / 1e6).toFixed(1), unit: "M" };
  if (value >= 9_999.5) return { text: (value / 1e3).toFixed(1), unit: "k" };
  return { text: String(Math.round(value)) };
}

/** @param {number | null} value @returns {Figure} */
export function rate(value) {
  if (value === null) return { text: NONE };
  return value < 99.95 && value > 0 ? { text: value < 0.05 ? "< 0.1" : value.toFixed(1) } : count(value);
}

/** @param {number | null} value @returns {Figure} */
export function bytes(value) {
  if (value === null) return { text: NONE };
  const units = ["B", "kB", "MB", "GB", "TB"];
  let at = 0;
  while (value >= 999.5 && at < units.length - 1) {
    value /= 1000;
    at += 1;
  }
  return { text: at === 0 || value >= 99.95 ? String(Math.round(value)) : value.toFixed(1), unit: units[at] };
}

/**
 * @param {number | null} value seconds; what is below the first bound of the histograms is not known
 * any better
 * @param {number[]} bounds
 * @returns {Figure}
 */
export function time(value, bounds) {
  if (value === null) return { text: NONE };
  if (value === Infinity) return { text: `> ${bounds.at(-1)}`, unit: "s" };
  if (value <= bounds[0]) return { text: `< ${bounds[0] * 1000}`, unit: "ms" };
  const ms = value * 1000;
  if (ms < 99.95) return { text: ms.toFixed(1), unit: "ms" };
  return ms < 999.5 ? { text: String(Math.round(ms)), unit: "ms" } : { text: value.toFixed(value < 9.995 ? 2 : 1), unit: "s" };
}

/** @param {number | null} value a part of 1 @returns {Figure} */
export function percent(value) {
  if (value === null) return { text: NONE };
  return { text: (value * 100).toFixed(value < 0.0995 ? 1 : 0), unit: "%" };
}

/** @param {Figure} figure */
export function line(figure) {
  return figure.unit ? `${figure.text} ${figure.unit}` : figure.text;
}

/** @param {number | null} seconds since 1970 @param {number} now the same */
export function ago(seconds, now) {
  return seconds === null ? "never" : `${durationText(now - seconds)} ago`;
}
