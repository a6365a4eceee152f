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
 * Puts marks around the selection, or removes them. Spaces at its ends stay outside, and each line has marks of
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
  }
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
  const text = toggled(selected, mark);
  box.setSelectionRange(start, end);
  insert(text);
  // Inside the marks of one line, so that another mark can be added or this one removed.
  const margin = !selected ? length : /\n/.test(text) ? 0 : Math.max(0, text.indexOf(selected));
  box.setSelectionRange(start + margin, start + text.length - margin);
}

/**
 * @param {string} selected
 * @param {string} mark
 * @returns {string} the same with marks, or without if each line has them
 */
function toggled(selected, mark) {
  if (!selected) return mark + mark;
  if (mark === "`" && selected.includes("\n")) return selected.match(/^```\n(.*)\n```$/s)?.[1] ?? `\`\`\`\n${selected}\n\`\`\``;
  const lines = selected.split("\n").map((line) => {
    const beginning = line.match(ITEM)?.[0] ?? "";
    const words = line.slice(beginning.length);
    return { line, beginning, words, bare: bare(words, mark) };
  });
  const areMarked = lines.every(({ words, bare }) => !words.trim() || bare !== undefined);
  return lines.map(({ line, beginning, words, bare }) => {
    if (!words.trim()) return line;
    if (areMarked) return beginning + bare;
    return bare === undefined ? beginning + words.replace(/\S(.*\S)?/, (inner) => around(inner, mark)) : line;
  }).join("\n");
}

/**
 * @param {string} words
 * @param {string} mark
 * @returns {string} with marks around it; code needs longer ones than those in it
 */
function around(words, mark) {
  const longest = mark === "`" ? Math.max(0, ...(words.match(/`+/g) ?? []).map(({ length }) => length)) : 0;
  return longest ? `${mark.repeat(longest + 1)} ${words} ${mark.repeat(longest + 1)}` : mark + words + mark;
}

/**
 * @param {string} words
 * @param {string} mark
 * @returns {string | undefined} without the marks around it, if it has them
 */
function bare(words, mark) {
  if (mark === "`") {
    const inner = words.match(/^(`+) ?(.*?) ?\1$/)?.[2];
    return inner && around(inner, mark) === words ? inner : undefined;
  }
  const stars = Math.min(...[/^\**/, /\**$/].map((end) => words.match(end)[0].length));
  const inner = words.slice(mark.length, -mark.length);
  // Two words with marks of their own have none around both.
  const isOne = !words.replace(/^\*+|\*+$/g, "").includes(mark);
  return inner && isOne && (stars > 2 || stars === mark.length) ? inner : undefined;
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
