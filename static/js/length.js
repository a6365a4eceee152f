/** The length of texts: a text over the limit is kept and counted, and cannot be sent until it is shorter. */

import { on } from "./runtime.js";

/** From so many characters before the limit on, their number is shown. */
const NEAR = 200;

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

on("input", ({ target }) => {
  if (target.dataset.limit) count(target);
});
