/** What I wrote, from Enter until the server has it: kept over a reload, sent again, given back if refused. */

import { write } from "./composer.js";
import { clearNotice, find, findAll, messageBox, roomId, roomTitle } from "./page.js";
import { on, root, send } from "./runtime.js";
import { scrollToEnd } from "./scroll.js";
import { destination, me, place, present, recall, remember } from "./session.js";

/** After so long without an answer a message is sent again. */
const RESEND_AFTER = 5000;

/** So many are sent at once: on a new socket, and otherwise. */
const MOST_ON_ARRIVAL = 99;
const MOST = 9;

/**
 * A message that the server has not said to have.
 * @typedef {object} Unsettled
 * @property {string} key by which the server knows it again
 * @property {string} message
 * @property {string} [room] the id of its room, once that is known
 * @property {string} to the address of its room
 * @property {string} title of its room
 * @property {string} user who I was when I wrote it
 * @property {number} [sent] when that was
 * @property {"refused" | "unsure"} [state] none while it waits
 * @property {string} [reason]
 */

/** @type {Unsettled[]} */
let unsettled = recall("unsettled") ?? [];

const waitingList = find("#waiting");
const waitingTemplate = /** @type {HTMLTemplateElement} */ (find("#waiting-message"));

/**
 * Sends what is in the box, or as soon as it can be.
 * @returns {void}
 */
export function post() {
  const message = messageBox.value.slice(0, messageBox.maxLength);
  messageBox.focus();
  if (!message.trim()) return;
  unsettled.push({
    key: freshKey(),
    message,
    // Where I am on the way to a room, its id comes with it.
    room: destination ? undefined : roomId(),
    to: place(),
    title: destination?.address ?? roomTitle(),
    user: me,
  });
  write("");
  sendDue();
  scrollToEnd();
}

/**
 * A random UUID. `randomUUID` is for https alone, and a chat at home may do without.
 * @returns {string}
 */
function freshKey() {
  if (crypto.randomUUID) return crypto.randomUUID();
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  // Version 4, and the variant of RFC 9562.
  bytes[6] = (bytes[6] & 0x0f) | 0x40;
  bytes[8] = (bytes[8] & 0x3f) | 0x80;
  const digits = Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
  return digits.replace(/(.{8})(.{4})(.{4})(.{4})(.{12})/, "$1-$2-$3-$4-$5");
}

/**
 * Sends what waits, and again what was not answered.
 * @param {{ arrived?: boolean }} [when] on a new socket, all that is not settled is due
 * @returns {void}
 */
export function sendDue({ arrived = false } = {}) {
  const now = Date.now();
  const due = unsettled.filter(({ room, state, sent = 0 }) => {
    return present && room && !state && (arrived || now - sent >= RESEND_AFTER);
  });
  for (const one of due.slice(0, arrived ? MOST_ON_ARRIVAL : MOST)) sendOne(one);
  draw();
}

/**
 * @param {Unsettled} one
 * @returns {void}
 */
function sendOne(one) {
  const { key, message, room } = one;
  // Written before I was anybody.
  one.user ||= me;
  if (one.user !== me) {
    // Nobody speaks for who they were before.
    one.state = one.sent ? "unsure" : "refused";
  } else if (send("New message", { message, room, key })) {
    one.sent = Date.now();
  }
}

/** @returns {void} */
export function resend() {
  if (unsettled.length) sendDue();
}

/**
 * Lets go of the messages whose keys have come back, in the room or with a refusal.
 * @param {DocumentFragment} fragment
 * @param {boolean} refused
 * @returns {void}
 */
export function settle(fragment, refused) {
  for (const { dataset } of findAll(fragment, "[data-key]:not([data-tone=wait])")) {
    const one = unsettled.find(({ key }) => key === dataset.key);
    if (!one) continue;
    if (!refused) {
      drop(one);
      clearNotice();
    } else if (messageBox.value || one.to !== place()) {
      one.state = "refused";
      one.reason = fragment.querySelector(".notice__text").textContent;
      draw();
    } else {
      drop(one);
      write(one.message);
    }
  }
}

/**
 * Says in which room those are to be sent that were written on the way to it.
 * @param {string} address
 * @param {string} room
 * @returns {void}
 */
export function assignRoom(address, room) {
  for (const one of unsettled) {
    if (one.to === address) one.room ||= room;
  }
}

/**
 * The room that I was on the way to is not to be had.
 * @returns {void}
 */
export function refuseWithoutRoom() {
  for (const one of unsettled) {
    if (!one.room) one.state = "refused";
  }
}

/**
 * @param {Unsettled} one
 * @returns {void}
 */
function drop(one) {
  unsettled = unsettled.filter((other) => other !== one);
  document.getElementById(one.key).remove();
  draw();
}

/**
 * Shows what is not settled, and keeps it.
 * @returns {void}
 */
export function draw() {
  remember("unsettled", unsettled);
  root.dataset.pending = String(unsettled.filter(({ state }) => !state).length);
  for (const one of unsettled) {
    const { key, room, to, state = "waiting" } = one;
    const node = document.getElementById(key) ?? waitingList.appendChild(blank());
    node.id = key;
    node.dataset.state = state;
    // What waits for a room is shown there. What is refused is shown everywhere.
    node.hidden = Boolean(room) && state === "waiting" && to !== place();
    for (const slot of findAll(node, "[data-slot]")) slot.textContent = one[slot.dataset.slot];
  }
}

/** @returns {HTMLElement} */
function blank() {
  return /** @type {HTMLElement} */ (waitingTemplate.content.firstElementChild.cloneNode(true));
}

on("click", ({ target }) => {
  const { back } = target.dataset;
  if (!back) return;
  const one = unsettled.find(({ key }) => key === target.closest("[id]").id);
  drop(one);
  if (back === "edit") write([messageBox.value, one.message].filter(Boolean).join("\n"));
  messageBox.focus();
}, waitingList);
