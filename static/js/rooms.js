/** Changing rooms without loading a page, and the field to search for messages, whose results are a page with an address too. */

import { count, keepDraft, restoreDraft, takeIdleFocus } from "./composer.js";
import { mark } from "./marks.js";
import { sendDue, showUnsettled } from "./outbox.js";
import {
  clearNotice, closePopover, find, findAll, messageBox, messageForm, messageList, roomAddress, roomId,
} from "./page.js";
import { on, send } from "./runtime.js";
import { scrollToEnd, showPart, stopAwaitingMessages } from "./scroll.js";
import {
  addressOf, destination, place, present, recall, remember, roomNamed, setDestination, titleOf,
} from "./session.js";
import { reportAllRead } from "./unread.js";

/** What needs a room to write to. Without files, the button to attach them is missing. */
const controls = /** @type {HTMLButtonElement[]} */ (findAll(document, "#message-text, #attach, #send"));

/** After this time the heading names a room that has not arrived, in place of the one before. Milliseconds. */
const SLOW = 500;

let slow;

/** Where I search. */
const field = /** @type {HTMLInputElement} */ (find("#search"));

/** The id of the room that is shown. */
let shownRoom;

/** The address in the heading. */
let shownAddress = roomAddress();

/**
 * The addresses requested on this socket since I last settled in a room. The answers have the same order.
 * @type {string[]}
 */
let asked = [];

/**
 * @param {string} link
 * @param {boolean} replaces
 * @returns {void}
 */
export function enter(link, replaces) {
  const url = new URL(link, location.href);
  const address = addressOf(url);
  const text = url.searchParams.get("q");
  let room;
  try {
    room = roomNamed(address);
  } catch {
    stayHere();
    return;
  }
  if (!room && text === null) {
    location.reload();
    return;
  }
  const query = room ? url.search : "";
  if (address === place()) {
    // What was found may have changed.
    if (text !== null && !destination) send("Search", { text });
    if (query) {
      if (!replaces) history.pushState(null, "", query);
      showPart(addressedMessage());
    }
    return;
  }
  if (!destination) asked = [];
  setDestination({ address, query, replaces, action: room ? "Change group" : "Search", data: room ?? { text } });
  clearNotice();
  askForRoom();
  showPlace();
}

/**
 * Requests the destination, if there is one. Without a socket, it is requested later.
 * @returns {void}
 */
export function askForRoom() {
  if (!destination || !present) return;
  reportAllRead();
  if (send(destination.action, destination.data)) asked.push(destination.address);
}

/** @returns {void} */
export function forgetAsked() {
  asked = [];
}

/**
 * Handles a new heading. It may answer the latest request, answer an earlier one, or show a new name.
 * @returns {void}
 */
export function followHeading() {
  const address = roomAddress();
  const moved = address !== shownAddress;
  shownAddress = address;
  const renamed = moved && !destination && find(`#group-name [data-room="${shownRoom}"]`);
  if (renamed && messageBox.value) keepDraft(address);
  if (destination) {
    // The room's own address may differ from the requested one.
    const isAnswer = address === destination.address || (moved && asked.length === 1);
    if (!isAnswer) return;
  } else if (asked.includes(address) && address !== asked.at(-1)) {
    return;
  }
  settleAt(destination?.replaces, destination?.query);
}

/**
 * The destination cannot be entered.
 * @returns {void}
 */
export function giveUpDestination() {
  if (!destination) return;
  stayHere();
}

/** @returns {void} */
function stayHere() {
  settleAt(true);
}

/**
 * @param {boolean} replaces whether the new address replaces the current entry of the browser's history
 * @param {string} [query]
 * @returns {void}
 */
function settleAt(replaces, query = "") {
  setDestination(null);
  if (shownAddress && shownAddress !== addressOf(location)) {
    if (replaces) history.replaceState(null, "", shownAddress + query);
    else history.pushState(null, "", shownAddress + query);
  }
  showPlace();
}

/**
 * Updates everything that depends on the current room or the destination.
 * @returns {void}
 */
function showPlace() {
  clearTimeout(slow);
  const { dataset } = find("#group-name");
  if (destination) slow = setTimeout(() => { dataset.entering = titleOf(place()); }, dataset.entering ? 0 : SLOW);
  else delete dataset.entering;
  restoreDraft();
  showUnsettled();
  mark(document);
}

/**
 * Resets the page if the messages are those of another room.
 * @returns {boolean} whether they are
 */
export function openRoom() {
  if (roomId() === shownRoom) return false;
  keepEdit();
  shownRoom = roomId();
  stopAwaitingMessages();
  closePopover();
  messageForm.replaceChildren();
  reopenEdit();
  for (const control of controls) control.disabled = !shownRoom;
  showPlace();
  sendDue();
  scrollToEnd();
  takeIdleFocus();
  // The first page of a private room is empty, so the message is asked for now.
  const isAddressed = shownRoom && place() === location.pathname && !messageList().dataset.at;
  if (isAddressed && addressedMessage()) showPart(addressedMessage());
  return true;
}

/**
 * Keeps the edit in progress of the room that I leave.
 * @returns {void}
 */
function keepEdit() {
  /** @type {HTMLTextAreaElement} */
  const box = messageForm.querySelector("[data-edits] textarea");
  if (box) remember(`edit.${shownRoom}`, { id: box.id, text: box.value });
}

/**
 * Opens the edit in progress of this room again, unless I am only passing through.
 * @returns {void}
 */
export function reopenEdit() {
  const { id } = recall(`edit.${shownRoom}`) ?? {};
  if (!id || destination || messageForm.firstElementChild) return;
  const data = { message: Number(id.slice("edit-".length)), room: shownRoom };
  if (send("Open message", data)) messageForm.dataset.focus = "textarea";
}

/**
 * The form of a message has been opened, or was refused. If I was editing that message, it has the text I had typed.
 * @returns {void}
 */
export function restoreEdit() {
  const { id, text } = recall(`edit.${shownRoom}`) ?? {};
  const box = messageForm.querySelector("textarea");
  remember(`edit.${shownRoom}`, null);
  if (!box || box.id !== id) return;
  box.value = text;
  count(box);
}

/**
 * @param {MouseEvent} event
 * @returns {boolean} whether it is not one that the browser has another meaning for, such as a new tab
 */
function isPlain(event) {
  return !(event.button || event.metaKey || event.ctrlKey || event.shiftKey || event.altKey);
}

/**
 * @returns {number | undefined} the message that the page's address names
 */
function addressedMessage() {
  return Number(new URLSearchParams(location.search).get("at")) || undefined;
}

/** @returns {void} */
function followAddress() {
  if (roomId() && addressOf(location) === place()) showPart(addressedMessage());
  else enter(location.href, true);
}

/**
 * Shows the whole topic in the menu, as the head shows one line of it.
 * @returns {void}
 */
export function showTopic() {
  const words = find(".menu > .aside__words");
  if (words) words.textContent = find("#room-topic").textContent.trim();
}

/**
 * @param {string} address of a room or of a message in it
 * @returns {void}
 */
export function goTo(address) {
  history.pushState(null, "", address);
  followAddress();
}

/**
 * @param {string} text
 * @returns {void}
 */
export function search(text) {
  enter(`/search/?${new URLSearchParams({ q: text.trim() })}`, false);
  closePopover();
}

/**
 * The field shows what the page is about.
 * @returns {void}
 */
export function showTyped() {
  if (field === document.activeElement) return;
  const isMentions = find(".nav__mentions[aria-current]") !== null;
  field.value = isMentions ? "" : new URLSearchParams(location.search).get("q") ?? "";
}

on("popstate", () => {
  // What was typed belongs to the page that I go back from.
  field.blur();
  followAddress();
}, window);
on("pagehide", keepEdit, window);

on("click", (event) => {
  const link = event.target.closest("a[href^='?at=']");
  if (!link || !isPlain(event)) return;
  event.preventDefault();
  goTo(link.getAttribute("href"));
});

on("click", (event) => {
  const link = event.target.closest("a[data-group-name], .message a[href^='/chat/'], a[href^='/search/']");
  if (!link || !isPlain(event)) return;
  event.preventDefault();
  enter(link.getAttribute("href"), false);
  closePopover();
  if (!link.closest("#users-found")) return;
  const { form } = /** @type {HTMLInputElement} */ (find("#people-search"));
  form.reset();
  form.requestSubmit();
});

on("keydown", (event) => {
  const { target, key } = event;
  if (key === "Escape" && target === field && !event.shiftKey) {
    event.preventDefault();
    field.blur();
    closePopover();
    takeIdleFocus();
  }
  const isTyping = target.matches("input, textarea, select, [contenteditable]");
  if (key !== "/" || isTyping || event.ctrlKey || event.metaKey || event.altKey) return;
  event.preventDefault();
  // On a narrow screen it is in the drawer.
  if (!field.offsetParent) find("#aside").showPopover();
  field.select();
});
