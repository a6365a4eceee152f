/** The message box: drafts, keys, and reporting that I am typing. */

import { count } from "./length.js";
import { find, findAll, isComposed, messageBox, messageForm, messageList, roomId } from "./page.js";
import { on, send } from "./runtime.js";
import { me, place, recall, remember } from "./session.js";

/** The shortest time between two `Typing` actions. */
const TYPING_INTERVAL = 2500;

let typedAt = 0;

/**
 * Puts a text into the box and saves it as the draft of this room.
 * @param {string} text
 * @returns {void}
 */
export function write(text) {
  messageBox.value = text;
  count(messageBox);
  keepDraft(place());
}

/**
 * Saves the text in the box as the draft of the room with that address.
 * @param {string} address
 * @returns {void}
 */
export function keepDraft(address) {
  remember(`draft.${address}`, messageBox.value);
}

/**
 * Restores the draft of this room.
 * @returns {void}
 */
export function restoreDraft() {
  write(recall(`draft.${place()}`) ?? "");
}

/**
 * Focuses the box if nothing else needs the focus. Not on a touch screen, where that opens the keyboard.
 * @returns {void}
 */
export function takeIdleFocus() {
  const idle = document.activeElement.matches("body, .nav__link");
  if (idle && matchMedia("(hover: hover)").matches) messageBox.focus();
}

/**
 * Focuses the form of a message when it opens, and the box when it closes.
 * @returns {void}
 */
export function focusMessageForm() {
  /** @type {HTMLElement} */
  const field = messageForm.querySelector(messageForm.dataset.focus ?? "textarea, button") ?? messageBox;
  delete messageForm.dataset.focus;
  field.focus();
  if (field instanceof HTMLTextAreaElement) field.selectionStart = field.textLength;
}

/** @returns {void} */
function reportTyping() {
  // Others do not see that I am typing a command.
  if (messageBox.value.startsWith("/") || Date.now() - typedAt <= TYPING_INTERVAL) return;
  if (send("Typing", { room: roomId() })) typedAt = Date.now();
}

/** @returns {void} */
function editMyLastMessage() {
  findAll(messageList(), `[data-user="${me}"] .change`).at(-1)?.click();
}

on("input", () => {
  write(messageBox.value);
  reportTyping();
}, messageBox);

on("keydown", (event) => {
  const { target, key } = event;
  if (isComposed(event)) return;
  if (key === "Escape") {
    /** @type {HTMLElement} */ (messageForm.querySelector("[data-dismiss]"))?.click();
    takeIdleFocus();
  }
  if (key === "ArrowUp" && target === messageBox && !messageBox.value) editMyLastMessage();
  if (key === "Enter" && !event.shiftKey && target.matches("textarea")) {
    event.preventDefault();
    target.form.requestSubmit();
  }
});
