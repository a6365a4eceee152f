/** Scrolling: follows the end of the conversation if the reader is there, and otherwise keeps the view. */

import { messageNumber, messages } from "./messages.js";
import { find, messageBox, messageList, roomId, scroller } from "./page.js";
import { on, send } from "./runtime.js";

/** A reader who is at most this far from the end, in pixels, counts as being at the end. */
const NEAR_END = 48;

/** Older messages are requested when the reader is this close to the first one, in pixels. */
const NEAR_START = 600;

/** The space above a message that is shown at the top, in pixels. */
const MARGIN = 48;

/** A page that follows the end keeps at most this many messages. */
const MOST_MESSAGES = 500;

const newMessages = find("#new-messages");

/** Whether new messages move the view. */
let following = true;

/** The ids of the messages of others that have arrived below the view. */
const arrived = new Set();

/** Whether older messages have been requested and have not arrived. */
let awaitsOlder = false;

/** The same for newer messages, in a list that does not reach the end. */
let awaitsNewer = false;

/** The same for another part of the room, which replaces the list. */
let awaitsPart = false;

/** The scroll range when the view was last moved to the end. */
let rangeAtEnd = 0;

/**
 * The message whose position on screen is kept.
 * @type {Element | null}
 */
let anchor = null;
let anchorTop = 0;

/**
 * @returns {boolean} whether the end of the room is in view
 */
export function isAtEnd() {
  return following && !awaitsPart;
}

/**
 * @returns {Element | null} the gap between the messages shown and the newest ones
 */
function gap() {
  return find("#messages-newer");
}

/** @returns {void} */
export function scrollToEnd() {
  if (gap()) return;
  following = true;
  arrived.clear();
  showButton();
  if (!awaitsOlder) dropOldest();
  rangeAtEnd = range();
  scroller.scrollTop = rangeAtEnd;
}

/** @returns {void} */
export function showEnd() {
  if (gap()) showPart();
  scrollToEnd();
}

/**
 * Shows a message near the top of the view, if it is above it.
 * @param {Element} message
 * @returns {void}
 */
export function showAt(message) {
  const above = top(message) - top(scroller) - MARGIN;
  if (above >= 0) return;
  following = false;
  scroller.scrollTop += above;
}

/**
 * Moves the view no further than it takes to show a message, from its beginning.
 * @param {Element} message
 * @returns {void}
 */
export function showWhole(message) {
  const below = message.getBoundingClientRect().bottom - scroller.getBoundingClientRect().bottom;
  if (below > 0) scroller.scrollTop += below;
  showAt(message);
}

/**
 * Removes the oldest messages, so that a page stays small even if it is open for a long time.
 * @returns {void}
 */
function dropOldest() {
  const surplus = messages().slice(0, -MOST_MESSAGES);
  if (!surplus.length) return;
  for (const message of surplus) message.remove();
  find("#messages-older").dataset.more = "true";
}

/** @returns {void} */
function showButton() {
  const count = [...arrived].filter((id) => !find(`#${id}`)?.matches(".message--deleted")).length;
  newMessages.hidden = !count && !gap();
  newMessages.textContent = `${count ? `${count} new message${count > 1 ? "s" : ""}` : "Newest messages"} ↓`;
}

/**
 * Shows another part of the room: the messages around one, or without one the newest.
 * @param {number} [at]
 * @returns {void}
 */
export function showPart(at) {
  awaitsPart = send("Show messages", { at, room: roomId() });
}

/**
 * The list has been replaced by another part of the room. Shows the place it was asked for.
 * @returns {void}
 */
export function openPart() {
  stopAwaitingMessages();
  const { at, after } = messageList().dataset;
  const message = messages().find((one) => messageNumber(one) >= Number(at ?? Number(after) + 1));
  if (!message || !(at || after)) {
    scrollToEnd();
    return;
  }
  following = false;
  scroller.scrollTop += top(message) - top(scroller) - (at ? scroller.clientHeight / 3 : MARGIN);
  showButton();
}

/** @returns {void} */
export function askForNewer() {
  const shown = messages();
  const border = gap();
  if (awaitsPart || awaitsNewer || !border) return;
  const isBefore = (message) => message.compareDocumentPosition(border) & Node.DOCUMENT_POSITION_FOLLOWING;
  const last = shown.findLast(isBefore);
  const next = shown.find((message) => !isBefore(message));
  const after = last ? messageNumber(last) : 0;
  const before = next && messageNumber(next);
  awaitsNewer = send("Newer messages", { after, before, room: roomId() });
}

/** @returns {void} */
export function askForOlder() {
  const oldest = find("#messages-older[data-more=true] ~ .message");
  if (awaitsPart || awaitsOlder || !oldest) return;
  awaitsOlder = send("Older messages", { before: messageNumber(oldest), room: roomId() });
}

/**
 * A page has arrived.
 * @param {string} swap how it is added
 * @returns {void}
 */
export function takePage(swap) {
  if (swap === "prepend") awaitsOlder = false;
  if (swap === "before") awaitsNewer = false;
}

/**
 * The requested messages will not arrive, or are not needed any more.
 * @returns {void}
 */
export function stopAwaitingMessages() {
  awaitsOlder = false;
  awaitsNewer = false;
  awaitsPart = false;
}

/**
 * Remembers what the reader sees before the page changes.
 * @returns {void}
 */
export function noteView() {
  anchor = following ? null : messages().find((message) => top(message) >= top(scroller));
  if (anchor) anchorTop = top(anchor);
}

/**
 * After the page has changed, keeps what the reader sees, or follows the end.
 * @param {Element[]} appended the messages of others that are new at the end
 * @returns {void}
 */
export function restoreView(appended) {
  for (const { id } of appended) arrived.add(id);
  if (following) scrollToEnd();
  else showButton();
  if (anchor?.isConnected) scroller.scrollTop += top(anchor) - anchorTop;
  // If the messages do not fill the view, scrolling cannot request more.
  if (range()) return;
  askForOlder();
  askForNewer();
}

/** @returns {number} how far one can scroll, in pixels */
function range() {
  return scroller.scrollHeight - scroller.clientHeight;
}

/**
 * @param {Element} element
 * @returns {number} in pixels, from the top of the window
 */
function top(element) {
  return element.getBoundingClientRect().top;
}

on("scroll", () => {
  // If the range has changed, the list has grown and the reader has not scrolled.
  if (following && range() !== rangeAtEnd) scrollToEnd();
  const below = range() - scroller.scrollTop;
  following = below < NEAR_END && !gap();
  if (following) arrived.clear();
  else if (scroller.scrollTop < NEAR_START) askForOlder();
  if (below < NEAR_START) askForNewer();
  showButton();
}, scroller);

on("click", () => {
  showEnd();
  messageBox.focus();
}, newMessages);

new ResizeObserver(() => {
  if (following) scrollToEnd();
}).observe(scroller);
