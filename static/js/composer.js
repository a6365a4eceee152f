/** The message box: drafts, how long they are, what they reply to, keys, and reporting that I am typing. */

import { messageNumber } from "./messages.js";
import { find, findAll, isComposed, messageBox, messageForm, messageList, roomId, said } from "./page.js";
import { on, send } from "./runtime.js";
import { destination, me, place, recall, remember } from "./session.js";

/** From so many characters before the limit on, their number is shown. */
const NEAR = 200;

/** The shortest time between two `Typing` actions. */
const TYPING_INTERVAL = 2500;

let typedAt = 0;

/** What was in the box before this script ran. */
let early = messageBox.value;

/**
 * A message that another one replies to.
 * @typedef {object} Original
 * @property {number} id
 * @property {string} name its author's
 * @property {string} line its first line
 */

/**
 * What the text in the box replies to.
 * @type {Original | null}
 */
let original = null;

const replying = find("#replying");

/**
 * The message that had the focus when its form was opened.
 * @type {HTMLElement | null}
 */
let opener = null;

/**
 * Counts as the server does: characters, not UTF-16 units, without those that nobody can see.
 * @param {string} text
 * @returns {number}
 */
function characters(text) {
  return [...text.replace(/[^\P{Cc}\n\t]/gu, "")].length;
}

/**
 * Shows how many characters are left, and keeps the form from being sent if there are too many.
 * @param {HTMLTextAreaElement} box
 * @returns {void}
 */
export function count(box) {
  const left = Number(box.dataset.limit) - characters(box.value);
  const counter = box.form.querySelector("output");
  counter.value = left < NEAR ? String(left).replace("-", "−") : "";
  counter.toggleAttribute("data-over", left < 0);
  box.setCustomValidity(left < 0 ? `The message is ${-left} characters too long.` : "");
}

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
 * Saves the text in the box, and what it replies to, as the draft of the room with that address.
 * @param {string} address
 * @returns {void}
 */
export function keepDraft(address) {
  remember(`draft.${address}`, messageBox.value);
  remember(`reply.${address}`, original);
}

/**
 * Sets what the text in the box replies to.
 * @param {Original | null} [next]
 * @returns {void}
 */
export function replyTo(next = null) {
  original = next;
  replying.hidden = !original;
  if (original) showOriginal(original);
  keepDraft(place());
}

/**
 * A push has changed quotes, and maybe the one above the box.
 * @returns {void}
 */
export function keepOriginal() {
  if (!original) return;
  original.line = replying.querySelector(".quote").lastChild.textContent.trim();
  keepDraft(place());
}

/**
 * @param {Original} original
 * @returns {void}
 */
function showOriginal({ id, name, line }) {
  const quote = /** @type {HTMLAnchorElement} */ (replying.querySelector(".quote"));
  quote.href = `?at=${id}`;
  quote.dataset.quotes = String(id);
  const author = document.createElement("span");
  author.className = "quote__name";
  author.textContent = name;
  quote.replaceChildren(author, ` ${line}`);
}

/**
 * @param {HTMLElement | null} message
 * @returns {void}
 */
export function reply(message) {
  // One that was deleted or could not be drawn has no author. While I enter another room, this one is left.
  if (!message?.dataset.user || destination) return;
  const [line] = said(message).split("\n");
  const name = message.querySelector("b").firstChild.textContent.trim();
  replyTo({ id: messageNumber(message), name, line });
  messageForm.replaceChildren();
  messageBox.focus();
}

/**
 * @returns {boolean} whether the box has no text, and nothing that it replies to
 */
export function isBlank() {
  return !messageBox.value && !original;
}

/**
 * @returns {Original | null} what the message replies to that is being sent; the next one replies to nothing
 */
export function takeOriginal() {
  const taken = original;
  replyTo();
  return taken;
}

/**
 * Restores the draft of this room.
 * @returns {void}
 */
export function restoreDraft() {
  const text = recall(`draft.${place()}`) || early;
  early = "";
  replyTo(recall(`reply.${place()}`));
  write(text);
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
  const { focus = ".chip" } = messageForm.dataset;
  const field = messageForm.querySelector(focus) ?? messageBox;
  delete messageForm.dataset.focus;
  opener = find(".message:focus");
  if (field instanceof HTMLTextAreaElement && field !== messageBox) editText(field);
  else field.focus();
}

/**
 * Saves an edit, now or as soon as there is a socket again.
 * @param {HTMLFormElement} form
 * @param {object} data
 * @returns {void}
 */
export function saveEdit(form, data) {
  form.toggleAttribute("data-unsaved", !send("Edit message", data));
}

/** @returns {void} */
export function saveUnsaved() {
  /** @type {HTMLFormElement | null} */
  const form = messageForm.querySelector("[data-unsaved]");
  form?.requestSubmit();
}

/**
 * A message is deleted while I edit it. What I have typed becomes a draft.
 * @param {string} form its selector
 * @returns {void}
 */
export function keepDeleted(form) {
  /** @type {HTMLTextAreaElement | null} */
  const box = document.querySelector(`${form}[data-edits] textarea`);
  if (box) append(box.value);
}

/**
 * Adds a text to that in the box.
 * @param {string} text
 * @returns {void}
 */
export function append(text) {
  write([messageBox.value, text].filter(Boolean).join("\n"));
}

/**
 * Whoever edits sees no more than the text.
 * @param {HTMLTextAreaElement} field
 * @returns {void}
 */
function editText(field) {
  messageForm.firstElementChild.toggleAttribute("data-edits", true);
  field.focus();
  field.selectionStart = field.textLength;
}

/** @returns {void} */
function reportTyping() {
  // Others do not see that I am typing a command.
  if (messageBox.value.startsWith("/") || Date.now() - typedAt <= TYPING_INTERVAL) return;
  if (send("Typing", { room: roomId() })) typedAt = Date.now();
}

/** @returns {void} */
function editMyLastMessage() {
  messageForm.dataset.focus = "textarea";
  findAll(messageList(), `[data-user="${me}"] .change`).at(-1)?.click();
}

on("input", ({ target }) => {
  if (target.dataset.limit) count(target);
});

on("input", () => {
  write(messageBox.value);
  reportTyping();
}, messageBox);

on("click", ({ target }) => {
  if (target.id === "edit-text") editText(messageForm.querySelector("textarea"));
  const { reply: address } = target.dataset;
  if (address !== undefined) reply(address ? find(address) : target.closest(".message"));
});

on("click", () => {
  replyTo();
  messageBox.focus();
}, find("#replying button"));

on("keydown", (event) => {
  const { target, key } = event;
  if (isComposed(event)) return;
  if (key === "Escape") {
    /** @type {HTMLElement | null} */
    const close = messageForm.querySelector("[data-dismiss]");
    if (close) {
      close.click();
      opener?.focus();
    } else if (target === messageBox) replyTo();
    takeIdleFocus();
  }
  if (key === "ArrowUp" && target === messageBox && !messageBox.value) editMyLastMessage();
  if (key === "Enter" && !event.shiftKey && target.matches("textarea")) {
    event.preventDefault();
    target.form.requestSubmit();
  }
});
