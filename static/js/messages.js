/** The messages that are shown: their numbers and times, and which belong together. */

import { findAll, messageList } from "./page.js";

/** Messages of one person with less than this between them are shown as one. */
const LONGEST_PAUSE = 300_000;

/**
 * The oldest comes first.
 * @returns {HTMLElement[]}
 */
export function messages() {
  return findAll(messageList(), ".message");
}

/**
 * @param {Element} message
 * @returns {number}
 */
export function messageNumber(message) {
  return Number(message.id.slice("message-".length));
}

/**
 * Shows times in the reader's time zone.
 * @param {ParentNode} parent
 * @returns {void}
 */
export function localiseTimes(parent) {
  for (const time of /** @type {HTMLTimeElement[]} */ (findAll(parent, "time"))) {
    const date = new Date(time.dateTime);
    time.textContent = date.toLocaleTimeString([], { timeStyle: "short" });
    time.title = date.toLocaleDateString([], { dateStyle: "full" });
  }
}

/**
 * Marks where a day begins, and the messages that go on from the one before.
 * @returns {void}
 */
export function joinMessages() {
  let previous = { author: "", day: "", at: 0 };
  for (const message of messages()) {
    const name = message.querySelector("b");
    const time = message.querySelector("time");
    if (!time) {
      // A deleted message is nobody's, and no other goes on from it.
      previous.author = "";
      continue;
    }
    const author = name.textContent;
    const day = time.title;
    const at = Date.parse(time.dateTime);
    const sameDay = day === previous.day;
    const goesOn = sameDay && author === previous.author && at - previous.at < LONGEST_PAUSE;
    message.dataset.day = sameDay ? "" : day;
    message.toggleAttribute("data-joined", goesOn);
    previous = { author, day, at };
  }
}
