/** Reactions: the bar of emojis on the message under the mouse or with the focus. */

import { find } from "./page.js";
import { on } from "./runtime.js";

const quickBar = find("#quick");

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
