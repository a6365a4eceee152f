/** Reactions: the bar of emojis beside the message under the mouse, and what a click on one means. */

import { messageNumber } from "./messages.js";
import { find } from "./page.js";
import { on } from "./runtime.js";

const quickBar = find("#quick");

/**
 * Completes what a control says of a reaction by where the control stands.
 * @param {Record<string, any>} data
 * @param {HTMLElement} control
 * @returns {void}
 */
export function completeReaction(data, control) {
  data.on ??= control.ariaPressed !== "true";
  data.message ??= messageNumber(control.closest(".message"));
}

/**
 * Brings back the bar, if it went with a message that was redrawn.
 * @returns {void}
 */
export function keepQuickBar() {
  if (!quickBar.isConnected) find(".message:hover")?.append(quickBar);
}

on("mouseover", ({ target }) => {
  const message = target.closest(".message");
  if (message && message !== quickBar.parentNode) message.append(quickBar);
});
