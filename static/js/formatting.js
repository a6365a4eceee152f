/** Keys that format what I write: marks around the selection, links, and lists that go on. */

import { isComposed } from "./page.js";
import { on } from "./runtime.js";

/**
 * The mark of each key that is pressed with Ctrl or Cmd.
 * @type {Record<string, string>}
 */
const MARKS = { b: "**", i: "*", e: "`" };

/** How a line of a list or a quote begins. */
const ITEM = /^ *(?:> *)*(?:>|[-*+]|(\d{1,9})[.)]) +/;

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
 * Puts a mark around the selection, or removes it. Spaces at its ends stay outside, and each line has marks of
 * its own, as else they would mean nothing.
 * @param {HTMLTextAreaElement} box
 * @param {string} mark
 * @returns {void}
 */
function surround(box, mark) {
  const { value } = box;
  let { selectionStart: start, selectionEnd: end } = box;
  const chosen = value.slice(start, end);
  if (chosen.trim()) {
    start += chosen.length - chosen.trimStart().length;
    end -= chosen.length - chosen.trimEnd().length;
    box.setSelectionRange(start, end);
  }
  const selected = value.slice(start, end);
  const { length } = mark;
  if (selected.includes("\n")) {
    insert(mark === "`" ? `\`\`\`\n${selected}\n\`\`\`` : selected.split("\n").map((line) => surrounded(line, mark)).join("\n"));
    return;
  }
  const inner = selected.slice(length, -length);
  if (inner && surrounded(inner, mark) === selected) {
    insert(inner);
    box.setSelectionRange(start, start + inner.length);
    return;
  }
  const before = value.slice(0, start);
  // One star of two is not a mark.
  const isHalf = mark === "*" && before.endsWith("**") && !before.endsWith("***");
  if (before.endsWith(mark) && value.startsWith(mark, end) && !isHalf) {
    box.setSelectionRange(start - length, end + length);
    insert(selected);
    box.setSelectionRange(start - length, end - length);
    return;
  }
  const marked = surrounded(selected, mark);
  const margin = selected ? (marked.length - selected.length) / 2 : length;
  insert(marked || mark + mark);
  box.setSelectionRange(start + margin, end + margin);
}

/**
 * @param {string} line
 * @param {string} mark
 * @returns {string} the line with marks around what follows the beginning of an item or a quote
 */
function surrounded(line, mark) {
  const beginning = line.match(ITEM)?.[0] ?? "";
  const text = line.slice(beginning.length);
  if (!text.trim()) return line;
  // Code with such a mark in it needs longer ones.
  const around = mark === "`" && text.includes(mark) ? ["`` ", " ``"] : [mark, mark];
  return beginning + text.replace(/^(\s*)(.*?)(\s*)$/, (_, before, words, after) => before + around.join(words) + after);
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
  const [beginning, number] = line.match(ITEM) ?? [];
  const isListing = (value.slice(0, start).match(FENCE)?.length ?? 0) % 2;
  if (!beginning || isListing) return false;
  if (beginning === line && /^ *(\n|$)/.test(value.slice(at))) {
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
