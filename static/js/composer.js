/** The message box: drafts, keys, names that complete themselves, and saying that I type. */

import { find, findAll, messageBox, messageForm, messageList, roomId } from "./page.js";
import { on, send } from "./runtime.js";
import { me, place, recall, remember } from "./session.js";

/** How often others are told that I go on typing. */
const TYPING_INTERVAL = 2500;

/** What browsers call a key that an input method has taken. */
const TAKEN_BY_INPUT_METHOD = 229;

const completions = find("#completions");
let typedAt = 0;

/**
 * Puts a text into the box, and keeps it for this room.
 * @param {string} text
 * @returns {void}
 */
export function write(text) {
  messageBox.value = text;
  keepDraft(place());
  const name = nameBegun();
  if (name) send("Complete", { text: name });
  else completions.replaceChildren();
}

/**
 * Keeps what is written, for the room of that address.
 * @param {string} address
 * @returns {void}
 */
export function keepDraft(address) {
  remember(`draft.${address}`, messageBox.value);
}

/**
 * Brings back what was written in the room to which I have come.
 * @returns {void}
 */
export function restoreDraft() {
  write(recall(`draft.${place()}`) ?? "");
}

/**
 * Takes the focus if nothing else has a use for it. On a touch screen it would bring up the keyboard.
 * @returns {void}
 */
export function takeIdleFocus() {
  const idle = document.activeElement.matches("body, .nav__link");
  if (idle && matchMedia("(hover: hover)").matches) messageBox.focus();
}

/**
 * Goes to the form of a message that has come, or back to the box if it has gone.
 * @returns {void}
 */
export function focusMessageForm() {
  /** @type {HTMLElement} */
  const field = messageForm.querySelector("textarea, button") ?? messageBox;
  field.focus();
  if (field instanceof HTMLTextAreaElement) field.selectionStart = field.textLength;
}

/**
 * @returns {void}
 */
export function dropStaleCompletions() {
  if (!nameBegun()) completions.replaceChildren();
}

/**
 * @returns {string | undefined} the part of a name before the cursor, if one is being written
 */
function nameBegun() {
  const before = messageBox.value.slice(0, messageBox.selectionStart);
  const [, name] = before.match(/(?:^\/pm |\B@)(\S*)$/) ?? [];
  return name;
}

/** @returns {void} */
function sayThatITyped() {
  // A command is nobody's business.
  if (messageBox.value.startsWith("/") || Date.now() - typedAt <= TYPING_INTERVAL) return;
  if (send("Typing", { room: roomId() })) typedAt = Date.now();
}

/** @returns {void} */
function editMyLastMessage() {
  findAll(messageList(), `[data-user="${me}"] .change`).at(-1)?.click();
}

on("click", ({ target }) => {
  const button = target.closest("button");
  const name = nameBegun();
  if (button && name) {
    const cursor = messageBox.selectionStart;
    const [restOfName] = messageBox.value.slice(cursor).match(/^\S*/);
    messageBox.setRangeText(`${button.value} `, cursor - name.length, cursor + restOfName.length, "end");
  }
  write(messageBox.value);
  messageBox.focus();
}, completions);

on("selectionchange", dropStaleCompletions);

on("input", () => {
  write(messageBox.value);
  sayThatITyped();
}, messageBox);

on("keydown", (event) => {
  const { target, key } = event;
  if (event.isComposing || event.keyCode === TAKEN_BY_INPUT_METHOD) return;
  if (key === "Escape") {
    completions.replaceChildren();
    /** @type {HTMLElement} */ (messageForm.querySelector("[data-dismiss]"))?.click();
    takeIdleFocus();
  }
  if (key === "ArrowUp" && target === messageBox && !messageBox.value) editMyLastMessage();
  if (key === "Enter" && !event.shiftKey && target.matches("textarea")) {
    event.preventDefault();
    target.form.requestSubmit();
  }
});
