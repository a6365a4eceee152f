/** Who I am and where, and what this tab remembers of it when it is reloaded. */

import { find, messageList, roomAddress } from "./page.js";

/**
 * @param {string} name
 * @returns {any} what was stored by that name, if anything was
 */
export function recall(name) {
  try {
    return JSON.parse(sessionStorage.getItem(`overwire.${name}`));
  } catch {
    // Without storage the chat works all the same, until a reload.
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
    // The same; it may also be full.
  }
}

/** My user name, or what it was when there was last a socket. */
export let me = recall("user") ?? "";

/** Whether this socket has said who I am: before, nothing can be done on it. */
export let present = false;

/**
 * A room on the way to which I am.
 * @typedef {object} Destination
 * @property {string} address
 * @property {boolean} replaces whether its address takes the place of the one that the browser shows
 * @property {{ groupName: string, isGroup: boolean }} data what the server is asked
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
 * The path of the room that what I type is for: where I want to be, else where I am.
 * @returns {string}
 */
export function place() {
  return destination?.address ?? roomAddress() ?? location.pathname;
}

/**
 * Says to a new socket who I was and what I have seen.
 * @param {Record<string, string>} query
 * @param {string[]} protocols
 * @returns {void}
 */
export function introduceMyself(query, protocols) {
  const { room, version } = messageList().dataset;
  if (room) Object.assign(query, { room, after: version });
  query.at = location.pathname;
  const token = recall("resume");
  if (token) protocols.push(`resume.${token}`);
}

/**
 * The socket has said who I am.
 * @returns {void}
 */
export function arrive() {
  const { user, resume } = find("#logged-user [data-user]").dataset;
  me = user;
  remember("user", user);
  // Somebody who has signed in needs no token.
  if (resume) remember("resume", resume);
  present = true;
}

/** @returns {void} */
export function leave() {
  present = false;
}
