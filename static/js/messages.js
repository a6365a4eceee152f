/** The messages on the page: their ids, their times, and which of them form a block. */

import { findAll, messageList } from "./page.js";

/** Messages of one person with less than this between them form one block. */
const LONGEST_PAUSE = 300_000;

/**
 * @returns {HTMLElement[]} oldest first
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
    const day = date.toLocaleDateString([], { dateStyle: "full" });
    const isToday = day === new Date().toLocaleDateString([], { dateStyle: "full" });
    // A list of rooms has no separators of days.
    time.textContent = time.matches("[data-dated]") && !isToday
      ? date.toLocaleDateString([], { dateStyle: "medium" })
      : date.toLocaleTimeString([], { timeStyle: "short" });
    time.title = day;
  }
}

/**
 * Marks the first message of each day, and the messages that continue the block of the previous one.
 * @returns {void}
 */
export function joinMessages() {
  let previous = { author: "", day: "", at: 0 };
  for (const message of messages()) {
    const name = message.querySelector("b");
    const time = message.querySelector("time");
    if (!time) {
      // A deleted message ends the block.
      previous.author = "";
      continue;
    }
    const author = name.textContent;
    const day = time.title;
    const at = Date.parse(time.dateTime);
    const sameDay = day === previous.day;
    const continues = sameDay && author === previous.author && at - previous.at < LONGEST_PAUSE;
    message.dataset.day = sameDay ? "" : day;
    message.toggleAttribute("data-joined", continues);
    previous = { author, day, at };
  }
}
