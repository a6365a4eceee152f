/** Completion: proposes names and emojis for the word that is being typed in a message. */

import { find, findAll, isComposed } from "./page.js";
import { on, send } from "./runtime.js";

/** How long no key is pressed before completions are requested, in milliseconds. */
const DEBOUNCE = 100;

/** A word that can be completed: the person of a command, `@name`, `#group`, or two letters of an emoji. */
const WORD = /(?<=^\/pm )\S+$|(?<![\p{L}\p{N}_./&@#:-])(?:[@#][\p{L}\p{M}\p{N}._-]*|:[\w+-]{2,})$/u;
const REST_OF_WORD = /^[\p{L}\p{M}\p{N}._-]*/u;

const list = find("#completions");
const state = find("#completions-state");

/** The text whose completions were requested last, or "". */
let askedFor = "";

/** Where the word begins that shall not be completed, or -1. */
let dismissed = -1;

/** Whether the first option is taken as soon as it arrives. */
let hurried = false;

/** @type {number | undefined} */
let askTimer;

/** @returns {HTMLTextAreaElement | null} the focused text that can be completed */
function box() {
  return document.activeElement.closest("textarea");
}

/** @returns {{ text: string, start: number } | null} the word before the cursor, and where it begins */
function word() {
  const field = box();
  if (!field || field.selectionStart !== field.selectionEnd) return null;
  const before = field.value.slice(0, field.selectionStart);
  const [text] = before.match(WORD) ?? [];
  return text ? { text, start: before.length - text.length } : null;
}

/** @returns {HTMLElement[]} */
function options() {
  return findAll(list, "[role=option]");
}

/** @returns {HTMLElement | undefined} the option that the arrow keys have chosen */
function chosen() {
  return options().find(({ ariaSelected }) => ariaSelected === "true");
}

/**
 * @param {HTMLElement} [option]
 * @returns {void}
 */
function chooseOption(option) {
  for (const one of options()) one.ariaSelected = String(one === option);
  option?.scrollIntoView({ block: "nearest" });
  box()?.setAttribute("aria-activedescendant", option?.id ?? "");
}

/**
 * HTML gives a text of several lines no other role than its own, so it is a combobox only while it has a list.
 * @param {HTMLElement} field
 * @param {boolean} open
 * @returns {void}
 */
function expand(field, open) {
  field.role = open ? "combobox" : null;
  field.ariaExpanded = open ? "true" : null;
}

/** @returns {void} */
function close() {
  clearTimeout(askTimer);
  askedFor = "";
  hurried = false;
  list.replaceChildren();
  chooseOption();
  state.textContent = "";
  for (const field of findAll(document, "textarea")) expand(field, false);
}

/** @returns {void} */
function follow() {
  const { text = "", start = -1 } = word() ?? {};
  if (start !== dismissed) dismissed = -1;
  if (!text || start === dismissed) {
    close();
    return;
  }
  if (text === askedFor) return;
  askedFor = text;
  hurried = false;
  chooseOption();
  clearTimeout(askTimer);
  askTimer = setTimeout(() => send("Complete", { text }), DEBOUNCE);
}

/** @returns {void} */
export function checkWord() {
  if (askedFor) follow();
}

/**
 * @param {ParentNode} parent
 * @returns {string | undefined} the text that the options in it complete
 */
function completed(parent) {
  return /** @type {HTMLElement | null} */ (parent.querySelector("[data-text]"))?.dataset.text;
}

/**
 * Drops an answer about an earlier text: what is shown stays until the latest answer arrives.
 * @param {DocumentFragment} fragment
 * @returns {void}
 */
export function dropStale(fragment) {
  if (completed(fragment) !== askedFor) fragment.replaceChildren(...list.cloneNode(true).childNodes);
}

/** @returns {void} */
export function showCompletions() {
  const field = box();
  const { length } = options();
  if (!field || !askedFor) {
    close();
    return;
  }
  const { left, top } = field.getBoundingClientRect();
  Object.assign(list.style, { left: `${left}px`, bottom: `${innerHeight - top + 4}px` });
  expand(field, length > 0);
  state.textContent = length ? `Completions: ${length}` : "";
  if (hurried && length && completed(list) === askedFor) take(options()[0]);
}

/**
 * @param {HTMLElement} option what replaces the word
 * @returns {void}
 */
function take(option) {
  const field = box();
  const { text, start } = word() ?? {};
  if (!field || !text) return;
  const end = field.selectionStart;
  const rest = field.value.slice(end).match(REST_OF_WORD)[0].length;
  const after = field.value.slice(end + rest);
  let { insert } = option.dataset;
  // A command names a person without a sign, and an emoji ends the word by itself.
  if (!/^[@#:]/.test(text)) insert = insert.slice(1);
  if (!text.startsWith(":") && !/^\s/.test(after)) insert += " ";
  field.setRangeText(insert, start, end + rest, "end");
  field.dispatchEvent(new InputEvent("input", { bubbles: true }));
  close();
}

/**
 * @param {KeyboardEvent} event
 * @returns {boolean} whether the key was for the list
 */
function press({ key, shiftKey, altKey, ctrlKey, metaKey }) {
  const all = options();
  if (!all.length || shiftKey || altKey || ctrlKey || metaKey) return false;
  const at = all.indexOf(chosen());
  if (key === "ArrowDown") chooseOption(all[(at + 1) % all.length]);
  else if (key === "ArrowUp") chooseOption(all.at(at > 0 ? at - 1 : -1));
  else if (key === "Tab" && completed(list) !== askedFor) hurried = true;
  else if (key === "Tab") take(all[Math.max(at, 0)]);
  // Without a choice, the key sends the message.
  else if (key === "Enter" && at >= 0) take(all[at]);
  else if (key === "Escape") {
    dismissed = word()?.start ?? -1;
    close();
  } else return false;
  return true;
}

// This module is loaded before the others that listen to keys, so it can keep a key from them.
on("keydown", (event) => {
  if (isComposed(event) || event.target !== box() || !press(event)) return;
  event.preventDefault();
  event.stopImmediatePropagation();
});

on("input", ({ target, isComposing }) => {
  if (target === box() && !isComposing) follow();
});

on("compositionend", follow);

on("selectionchange", checkWord);

on("focusout", close);

// The text keeps the focus, and on a touch screen the keyboard stays open.
on("pointerdown", (event) => event.preventDefault(), list);

on("click", ({ target }) => {
  const option = target.closest("[role=option]");
  if (option) take(option);
}, list);
