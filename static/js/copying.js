/** Copying: several messages are copied as names, times and texts, without the controls between them. */

import { messages } from "./messages.js";
import { filesOf, said, wordsOf } from "./page.js";
import { on } from "./runtime.js";

/**
 * The name, the time, the selected part of the text and the files of a message.
 * @param {HTMLElement} message
 * @param {Range} chosen what is selected
 * @returns {string} empty if that ends before the text, or begins behind it
 */
function copied(message, chosen) {
  const words = (selector) => message.querySelector(selector)?.innerText.trim();
  const head = [words("b"), words("time")].filter(Boolean).join(", ");
  const text = part(message, chosen);
  if (text === "" && wordsOf(message)) return "";
  return [head, text, wordsOf(message) && filesOf(message)].filter(Boolean).join("\n");
}

/**
 * @param {HTMLElement} message
 * @param {Range} chosen
 * @returns {string} the selected part of the text, as it is shown
 */
function part(message, chosen) {
  const text = wordsOf(message);
  if (!text) return said(message);
  const range = document.createRange();
  range.selectNodeContents(text);
  const beginsBefore = range.compareBoundaryPoints(Range.START_TO_START, chosen) < 0;
  const endsBehind = range.compareBoundaryPoints(Range.END_TO_END, chosen) > 0;
  if (!beginsBefore && !endsBehind) return said(message);
  if (beginsBefore) range.setStart(chosen.startContainer, chosen.startOffset);
  if (endsBehind) range.setEnd(chosen.endContainer, chosen.endOffset);
  // Only a selection tells how a part of an element is shown.
  const selection = getSelection();
  const { anchorNode, anchorOffset, focusNode, focusOffset } = selection;
  selection.removeAllRanges();
  selection.addRange(range);
  const words = selection.toString().trim();
  selection.setBaseAndExtent(anchorNode, anchorOffset, focusNode, focusOffset);
  return words;
}

on("copy", (event) => {
  const selection = getSelection();
  const chosen = messages().filter((message) => selection.containsNode(message, true));
  if (chosen.length < 2) return;
  const range = selection.getRangeAt(0).cloneRange();
  const texts = chosen.map((message) => copied(message, range)).filter(Boolean);
  event.clipboardData.setData("text/plain", texts.join("\n\n"));
  event.preventDefault();
});
