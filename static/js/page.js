/** The parts of the page that several topics use, and the room that the page shows. */

/**
 * @param {string} selector
 * @returns {HTMLElement | null}
 */
export function find(selector) {
  return document.querySelector(selector);
}

/**
 * @param {ParentNode} parent
 * @param {string} selector
 * @returns {HTMLElement[]}
 */
export function findAll(parent, selector) {
  return [.../** @type {NodeListOf<HTMLElement>} */ (parent.querySelectorAll(selector))];
}

export const messageBox = /** @type {HTMLTextAreaElement} */ (find("#message-text"));

/** The key code of a key press that an input method has handled. */
const HANDLED_BY_INPUT_METHOD = 229;

/**
 * @param {KeyboardEvent} event
 * @returns {boolean} whether an input method has handled the key press
 */
export function isComposed({ isComposing, keyCode }) {
  return isComposing || keyCode === HANDLED_BY_INPUT_METHOD;
}

/** The form to edit a message or react to it. */
export const messageForm = find("#message-form");

export const scroller = find("#scroller");

/**
 * The list is replaced by another element when the room changes.
 * @returns {HTMLElement}
 */
export function messageList() {
  return find("#messages-list");
}

/**
 * @returns {string} empty if no room is shown
 */
export function roomId() {
  return messageList().dataset.room;
}

/** @returns {string} */
export function roomTitle() {
  return find("#group-name").textContent.trim();
}

/**
 * @returns {string | undefined} the path of the room
 */
export function roomAddress() {
  return find("#group-name [data-address]")?.dataset.address;
}

/**
 * @param {string} address
 * @returns {string | undefined} the id of the room with that address, if it is the one in the heading. The list may still be that of
 *   the room before
 */
export function roomAt(address) {
  const heading = find("#group-name [data-address]");
  return heading?.dataset.address === address ? heading.dataset.room : undefined;
}

/** @returns {void} */
export function closePopover() {
  find(":popover-open")?.hidePopover();
}

/** @returns {void} */
export function clearNotice() {
  find("#notice").replaceChildren();
}

/**
 * @param {Element} message
 * @returns {HTMLElement | null} its text
 */
export function wordsOf(message) {
  return message.querySelector(".message > p, .message__text");
}

/**
 * @param {Element} message
 * @returns {string} the names of its files
 */
export function filesOf(message) {
  return findAll(message, ".files__name, .files img").map((file) => file.alt || file.textContent).join(", ");
}

/**
 * @param {Element} message
 * @returns {string} its text, or the names of its files if it has none
 */
export function said(message) {
  // As it is shown: a quote, a list and what follows have lines of their own.
  return wordsOf(message)?.innerText.trim() || filesOf(message);
}
