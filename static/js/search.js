/** The field to search for messages. The results are a page of their own, with an address. */

import { takeIdleFocus } from "./composer.js";
import { closePopover, find } from "./page.js";
import { enter } from "./rooms.js";
import { on } from "./runtime.js";

const field = /** @type {HTMLInputElement} */ (find("#search"));

/**
 * @param {string} text
 * @returns {void}
 */
export function search(text) {
  enter(`/search/?${new URLSearchParams({ q: text.trim() })}`, false);
  closePopover();
}

/**
 * The field shows what the page is about.
 * @returns {void}
 */
export function showTyped() {
  if (field === document.activeElement) return;
  const isMentions = find(".nav__mentions[aria-current]") !== null;
  field.value = isMentions ? "" : new URLSearchParams(location.search).get("q") ?? "";
}

// What was typed belongs to the page that I go back from.
on("popstate", () => field.blur(), window);

on("keydown", (event) => {
  const { target, key } = event;
  if (key === "Escape" && target === field && !event.shiftKey) {
    event.preventDefault();
    field.blur();
    closePopover();
    takeIdleFocus();
  }
  const isTyping = target.matches("input, textarea, select, [contenteditable]");
  if (key !== "/" || isTyping || event.ctrlKey || event.metaKey || event.altKey) return;
  event.preventDefault();
  // On a narrow screen it is in the drawer.
  if (!field.offsetParent) find("#aside").showPopover();
  field.select();
});
