/** For screen readers: says each new message of somebody else once, with its author. */

import { findAll, find, said } from "./page.js";
import { me } from "./session.js";

/** How many announcements stay for those who read them later. */
const KEPT = 20;

const announcements = find("#announcements");

/**
 * @param {DocumentFragment} fragment messages that are new at the end
 * @returns {void}
 */
export function announce(fragment) {
  for (const message of findAll(fragment, ".message[data-user]")) {
    if (message.dataset.user === me) continue;
    const words = document.createElement("p");
    words.textContent = `${message.querySelector("b").textContent.trim()}: ${said(message)}`;
    announcements.append(words);
  }
  for (const old of [...announcements.children].slice(0, -KEPT)) old.remove();
}
