/** Scrolling: follows the end of the conversation if the reader is there, and otherwise keeps the view. */

import { messageNumber, messages } from "./messages.js";
import { find, messageBox, roomId, scroller } from "./page.js";
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
export let following = true;

/** Whether older messages have been requested and have not arrived. */
let awaitsOlder = false;

/** The scroll range when the view was last moved to the end. */
let rangeAtEnd = 0;

/**
 * The message whose position on screen is kept.
 * @type {Element | null}
 */
let anchor = null;
let anchorTop = 0;

/** @returns {void} */
export function scrollToEnd() {
  following = true;
  newMessages.hidden = true;
  if (!awaitsOlder) dropOldest();
  rangeAtEnd = range();
  scroller.scrollTop = rangeAtEnd;
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
export function askForOlder() {
  const oldest = find("#messages-older[data-more=true] ~ .message");
  if (awaitsOlder || !oldest) return;
  awaitsOlder = send("Older messages", { before: messageNumber(oldest), room: roomId() });
}

/**
 * Older messages have arrived, or will not arrive.
 * @returns {void}
 */
export function stopAwaitingOlder() {
  awaitsOlder = false;
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
 * @param {boolean} appended whether there are new messages at the end
 * @returns {void}
 */
export function restoreView(appended) {
  if (following) scrollToEnd();
  else if (appended) newMessages.hidden = false;
  if (anchor?.isConnected) scroller.scrollTop += top(anchor) - anchorTop;
  // If the messages do not fill the view, scrolling cannot request older ones.
  if (!range()) askForOlder();
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
  following = range() - scroller.scrollTop < NEAR_END;
  if (following) newMessages.hidden = true;
  else if (scroller.scrollTop < NEAR_START) askForOlder();
}, scroller);

on("click", () => {
  scrollToEnd();
  messageBox.focus();
}, newMessages);

new ResizeObserver(() => {
  if (following) scrollToEnd();
}).observe(scroller);
