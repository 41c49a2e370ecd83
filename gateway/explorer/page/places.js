// Where things are, seen from this file: it works below any prefix that a proxy adds.

/** The gateway's own root. */
export const root = new URL("../", import.meta.url);

/** The list of actions. */
export const actionsPage = new URL("./", import.meta.url);

/** The live values. */
export const eventsPage = new URL("./events", import.meta.url);

/** Whether the address is that of the live values. */
export function onEventsPage() {
  return location.pathname === eventsPage.pathname;
}

/** What stands behind the `#`, decoded as far as it can be. */
export function fragment() {
  const text = location.hash.slice(1);
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

/**
 * The `#…` for a key.
 * @param {string} key
 */
export function fragmentFor(key) {
  return `#${encodeURIComponent(key).replace(/%2F/g, "/").replace(/%3A/g, ":").replace(/%7E/g, "~")}`;
}
