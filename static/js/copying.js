/** Copying: several messages are copied as names, times and texts, without the controls between them. */

import { messages } from "./messages.js";
import { said } from "./page.js";
import { on } from "./runtime.js";

/**
 * @param {HTMLElement} message
 * @returns {string}
 */
function copied(message) {
  const words = (selector) => message.querySelector(selector)?.innerText.trim();
  const head = [words("b"), words("time")].filter(Boolean).join(", ");
  return [head, said(message)].filter(Boolean).join("\n");
}

on("copy", (event) => {
  const selection = getSelection();
  const chosen = messages().filter((message) => selection.containsNode(message, true));
  if (chosen.length < 2) return;
  event.clipboardData.setData("text/plain", chosen.map(copied).join("\n\n"));
  event.preventDefault();
});
