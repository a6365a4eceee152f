/** Reactions: the bar of emojis on the message under the mouse or with the focus, and the data of a `React` action. */

import { messageNumber } from "./messages.js";
import { find } from "./page.js";
import { on } from "./runtime.js";

const quickBar = find("#quick");

/**
 * Adds to the data what follows from the position and state of the control.
 * @param {Record<string, any>} data
 * @param {HTMLElement} control
 * @returns {void}
 */
export function completeReaction(data, control) {
  data.on ??= control.ariaPressed !== "true";
  data.message ??= messageNumber(control.closest(".message"));
}

/**
 * Puts the bar back if it was removed together with a message that was replaced.
 * @returns {void}
 */
export function keepQuickBar() {
  if (!quickBar.isConnected) find(".message:hover")?.append(quickBar);
}

for (const type of ["mouseover", "focusin"]) {
  on(type, ({ target }) => {
    const message = target.closest(".message");
    if (message && message !== quickBar.parentNode) message.append(quickBar);
  });
}
