/** Keys that format what I write: marks around the selection, links, and lists that go on. */

import { isComposed } from "./page.js";
import { on } from "./runtime.js";

/**
 * The mark of each key that is pressed with Ctrl or Cmd.
 * @type {Record<string, string>}
 */
const MARKS = { b: "**", i: "*", e: "`" };

/** How a line of a list or a quote begins. */
const ITEM = /^( *)(?:[-*+>]|(\d{1,9})([.)])) +/;

/** The first or last line of a listing. */
const FENCE = /^ *`{3,}[^`\n]*$/gm;

/** What cannot be the text of a link: a mention, an address, or what would end the text. */
const UNLINKED = /[@[\]\n]|:\/\/|[\p{L}\d]\.\p{L}{2}/u;

/**
 * Replaces the selection, so that it can be undone.
 * @param {string} text
 * @returns {void}
 */
function insert(text) {
  document.execCommand(text ? "insertText" : "delete", false, text);
}

/**
 * Puts a mark around the selection, or removes it.
 * @param {HTMLTextAreaElement} box
 * @param {string} mark
 * @returns {void}
 */
function surround(box, mark) {
  const { value, selectionStart: start, selectionEnd: end } = box;
  const selected = value.slice(start, end);
  const { length } = mark;
  const before = value.slice(0, start);
  // One star of two is not a mark.
  const isHalf = mark === "*" && before.endsWith("**") && !before.endsWith("***");
  if (before.endsWith(mark) && value.startsWith(mark, end) && !isHalf) {
    box.setSelectionRange(start - length, end + length);
    insert(selected);
    box.setSelectionRange(start - length, end - length);
    return;
  }
  insert(mark + selected + mark);
  box.setSelectionRange(start + length, end + length);
}

/**
 * Begins the next line of a list or a quote. In an empty one, the list ends.
 * @param {HTMLTextAreaElement} box
 * @returns {boolean} whether there is one
 */
function continueList(box) {
  const { value, selectionStart: at } = box;
  const start = value.lastIndexOf("\n", at - 1) + 1;
  const line = value.slice(start, at);
  const [beginning, , number] = line.match(ITEM) ?? [];
  const isListing = (value.slice(0, start).match(FENCE)?.length ?? 0) % 2;
  if (!beginning || isListing) return false;
  if (beginning === line) {
    box.setSelectionRange(at - line.length, at);
    insert("");
  } else {
    insert(`\n${number ? beginning.replace(number, String(Number(number) + 1)) : beginning}`);
  }
  return true;
}

on("keydown", (event) => {
  const { target, key } = event;
  if (!target.matches("textarea") || isComposed(event) || event.defaultPrevented || event.altKey) return;
  const mark = (event.ctrlKey || event.metaKey) && !event.shiftKey && MARKS[key.toLowerCase()];
  if (mark) surround(target, mark);
  else if (key !== "Enter" || !event.shiftKey || !continueList(target)) return;
  event.preventDefault();
});

on("paste", (event) => {
  const { target } = event;
  if (!target.matches("textarea")) return;
  const selected = target.value.slice(target.selectionStart, target.selectionEnd);
  const address = event.clipboardData.getData("text/plain").trim();
  const isAddress = /^(https?:\/\/|www\.)[^\s<>]+$/i.test(address);
  if (!isAddress || !selected.trim() || UNLINKED.test(selected)) return;
  event.preventDefault();
  insert(`[${selected}](${/[()]/.test(address) ? `<${address}>` : address})`);
});
