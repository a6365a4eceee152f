/** Going from room to room, without loading a page. */

import { keepDraft, restoreDraft, takeIdleFocus } from "./composer.js";
import { mark } from "./marks.js";
import { assignRoom, draw, refuseWithoutRoom, sendDue } from "./outbox.js";
import { clearNotice, closePopover, find, messageBox, messageForm, roomAddress, roomId } from "./page.js";
import { on, send } from "./runtime.js";
import { scrollToEnd, stopAwaitingOlder } from "./scroll.js";
import { destination, place, present, setDestination } from "./session.js";

const sendButton = /** @type {HTMLButtonElement} */ (find("#send"));

/** The id of the room that is shown. */
let shownRoom;

/** The address in the heading. */
let shownAddress = roomAddress();

/**
 * The addresses that this socket was asked for since I last stood still. The answers come in their order.
 * @type {string[]}
 */
let asked = [];

/**
 * @param {string} address
 * @param {boolean} replaces
 * @returns {void}
 */
function enter(address, replaces) {
  const [, person, name] = address.match(/^\/chat\/(@?)([^/]+)\/$/) ?? [];
  if (!name) {
    location.reload();
    return;
  }
  if (address === place()) return;
  if (!destination) asked = [];
  let groupName;
  try {
    groupName = decodeURIComponent(name);
  } catch {
    stayHere();
    return;
  }
  setDestination({ address, replaces, data: { groupName, isGroup: !person } });
  clearNotice();
  askForRoom();
  showPlace();
}

/**
 * Asks for the room that I want, now or once there is a socket.
 * @returns {void}
 */
export function askForRoom() {
  if (destination && present && send("Change group", destination.data)) asked.push(destination.address);
}

/** @returns {void} */
export function forgetAsked() {
  asked = [];
}

/**
 * The heading says where I am: that may be where I want to be, or where I wanted to be before.
 * @returns {void}
 */
export function followHeading() {
  const address = roomAddress();
  const moved = address !== shownAddress;
  shownAddress = address;
  const renamed = moved && !destination && find(`#group-name [data-room="${shownRoom}"]`);
  if (renamed && messageBox.value) keepDraft(address);
  if (destination) {
    // A room may have another address than the one that it was asked for by.
    const isAnswer = address === destination.address || (moved && asked.length === 1);
    if (!isAnswer) return;
  } else if (asked.includes(address) && address !== asked.at(-1)) {
    return;
  }
  settleAt(destination?.replaces);
}

/**
 * The room that I want is not to be had.
 * @returns {void}
 */
export function giveUpDestination() {
  if (!destination) return;
  refuseWithoutRoom();
  stayHere();
}

/** @returns {void} */
function stayHere() {
  settleAt(true);
}

/**
 * @param {boolean} replaces whether there is no way back to the address that the browser shows
 * @returns {void}
 */
function settleAt(replaces) {
  setDestination(null);
  if (shownAddress && shownAddress !== location.pathname) {
    if (replaces) history.replaceState(null, "", shownAddress);
    else history.pushState(null, "", shownAddress);
  }
  showPlace();
}

/**
 * Shows what depends on where I am or want to be.
 * @returns {void}
 */
function showPlace() {
  restoreDraft();
  draw();
  mark(document);
}

/**
 * Begins anew if the messages are those of another room.
 * @returns {void}
 */
export function openRoom() {
  if (roomId() === shownRoom) return;
  shownRoom = roomId();
  stopAwaitingOlder();
  closePopover();
  messageForm.replaceChildren();
  messageBox.disabled = !shownRoom;
  sendButton.disabled = !shownRoom;
  assignRoom(roomAddress(), shownRoom);
  showPlace();
  sendDue();
  scrollToEnd();
  takeIdleFocus();
}

on("popstate", () => enter(location.pathname, true), window);

on("click", (event) => {
  const link = event.target.closest("a[data-group-name]");
  // What opens another tab is the browser's.
  const plain = !(event.button || event.metaKey || event.ctrlKey || event.shiftKey || event.altKey);
  if (!link || !plain) return;
  event.preventDefault();
  enter(link.getAttribute("href"), false);
  closePopover();
  if (!link.closest("#users-found")) return;
  const { form } = /** @type {HTMLInputElement} */ (find("#people-search"));
  form.reset();
  form.requestSubmit();
});
