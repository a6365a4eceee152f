/** Where the reader is in the conversation: at its end, which is followed, or somewhere before. */

import { messageNumber, messages } from "./messages.js";
import { find, messageBox, roomId, scroller } from "./page.js";
import { on, send } from "./runtime.js";

/** A reader who is at most this far from the end, in pixels, counts as being at the end. */
const NEAR_END = 48;

/** Older messages are asked for before the reader gets to the first one. */
const NEAR_START = 600;

/** So many messages stay in a page that follows the end. */
const MOST_MESSAGES = 500;

const newMessages = find("#new-messages");

/** Whether new messages move the view. */
export let following = true;

/** Whether older messages have been asked for and not come. */
let awaitsOlder = false;

/** How far one could scroll when the view was last moved to the end. */
let rangeAtEnd = 0;

/**
 * A message that is to stay where it is seen.
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
 * Keeps a page small that is open for long.
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
 * Older messages have come, or will not.
 * @returns {void}
 */
export function stopAwaitingOlder() {
  awaitsOlder = false;
}

/**
 * Notes what the reader looks at, before the page changes.
 * @returns {void}
 */
export function noteView() {
  anchor = following ? null : messages().find((message) => top(message) >= top(scroller));
  if (anchor) anchorTop = top(anchor);
}

/**
 * Goes on showing what the reader looks at, or what is new, after the page has changed.
 * @param {boolean} appended whether there are new messages at the end
 * @returns {void}
 */
export function restoreView(appended) {
  if (following) scrollToEnd();
  else if (appended) newMessages.hidden = false;
  if (anchor?.isConnected) scroller.scrollTop += top(anchor) - anchorTop;
  // Where nothing can be scrolled, nobody would get to the older ones.
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
  // The list grew, and nobody scrolled.
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
