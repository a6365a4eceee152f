/** Who I am and in which room, and what this tab remembers over a reload. */

import { find, messageList, roomAddress } from "./page.js";
import { on } from "./runtime.js";

/**
 * @param {string} name
 * @returns {any} the value stored under that name, or null
 */
export function recall(name) {
  try {
    return JSON.parse(sessionStorage.getItem(`overwire.${name}`));
  } catch {
    // The chat also works without storage, until a reload.
    return null;
  }
}

/**
 * @param {string} name
 * @param {any} value
 * @returns {void}
 */
export function remember(name, value) {
  try {
    sessionStorage.setItem(`overwire.${name}`, JSON.stringify(value));
  } catch {
    // As above. The storage may also be full.
  }
}

/**
 * @param {string} prefix
 * @returns {string[]} the names under which values are stored and that begin like this, without that
 */
export function recalled(prefix) {
  try {
    const begun = `overwire.${prefix}`;
    return Object.keys(sessionStorage).filter((key) => key.startsWith(begun)).map((key) => key.slice(begun.length));
  } catch {
    // As above.
    return [];
  }
}

/** My user name, as of the last connection. */
export let me = recall("user") ?? "";

/** Whether the server has pushed `#logged-user` on this socket. Messages and rooms wait for that. */
export let present = false;

/**
 * A room that I am about to enter.
 * @typedef {object} Destination
 * @property {string} address
 * @property {string} query the part of the page's address that names a message there
 * @property {boolean} replaces whether its address replaces the current entry of the browser's history
 * @property {string} action the action that leads there
 * @property {object} data its data
 */

/** @type {Destination | null} */
export let destination = null;

/**
 * @param {Destination | null} next
 * @returns {void}
 */
export function setDestination(next) {
  destination = next;
}

/**
 * @param {URL | Location} url
 * @returns {string} the address of a room or a page: without the message that it names, but with what is searched
 */
export function addressOf({ pathname, search }) {
  return search.startsWith("?q=") ? pathname + search : pathname;
}

/**
 * @param {string} address
 * @returns {{ groupName: string, isGroup: boolean } | null} what names the room with that address in an action; null if it is
 *   that of no room
 */
export function roomNamed(address) {
  const [, person, name] = address.match(/^\/chat\/(@?)([^/]+)\/$/) ?? [];
  return name ? { groupName: decodeURIComponent(name), isGroup: !person } : null;
}

/**
 * @param {string} address
 * @returns {string} what to call the room with that address, as long as only that is known of it
 */
export function titleOf(address) {
  const room = roomNamed(address);
  return room ? (room.isGroup ? "#" : "@") + room.groupName : "Search";
}

/**
 * The address of the room that the message box writes to: the destination, or else the current room.
 * @returns {string}
 */
export function place() {
  return destination?.address ?? roomAddress() ?? addressOf(location);
}

/**
 * Adds to a new socket's request who I was and what the page shows.
 * @param {Record<string, string>} query
 * @param {string[]} protocols
 * @returns {void}
 */
export function identify(query, protocols) {
  const { room, version } = messageList().dataset;
  if (room) Object.assign(query, { room, after: version });
  query.at = addressOf(location);
  const token = recall("resume");
  if (token) protocols.push(`resume.${token}`);
}

/**
 * The server has pushed `#logged-user`.
 * @returns {string} who I was until now, if I am somebody else without having asked for it: I was signed out in another tab, say
 */
export function arrive() {
  const { user, resume } = find("#logged-user [data-user]").dataset;
  const former = user === me ? "" : me;
  me = user;
  remember("user", user);
  // A signed-in person gets no token.
  if (resume) remember("resume", resume);
  present = true;
  return former;
}

/** @returns {void} */
export function leave() {
  present = false;
}

// Whoever registers, signs in or signs out here knows who they are.
on("submit", ({ target }) => {
  if (target.closest("#account")) remember("user", "");
});
