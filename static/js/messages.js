/** The messages on the page: their ids, their times, the lines between days, and which form a block. */

import { find, findAll, messageList } from "./page.js";

/** Messages of one person with less than this between them form one block. */
const LONGEST_PAUSE = 300_000;

const dayLine = /** @type {HTMLTemplateElement} */ (find("#day-line"));

/** The day on which times were shown last. */
let shownOn = fullDate(new Date());

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
 * @param {Date} date
 * @returns {string}
 */
function fullDate(date) {
  return date.toLocaleDateString([], { dateStyle: "full" });
}

/**
 * Shows times in the reader's time zone.
 * @param {ParentNode} parent
 * @returns {void}
 */
export function localiseTimes(parent) {
  for (const time of /** @type {HTMLTimeElement[]} */ (findAll(parent, "time"))) {
    const date = new Date(time.dateTime);
    const day = fullDate(date);
    const isToday = day === fullDate(new Date());
    // A list of rooms has no separators of days.
    time.textContent = time.matches("[data-dated]") && !isToday
      ? date.toLocaleDateString([], { dateStyle: "medium" })
      : date.toLocaleTimeString([], { timeStyle: "short" });
    time.title = day;
  }
}

/** @returns {void} */
export function passMidnight() {
  if (shownOn === fullDate(new Date())) return;
  shownOn = fullDate(new Date());
  localiseTimes(document);
  joinMessages();
}

/**
 * @param {HTMLElement} message the first of a day
 * @param {string} day
 * @returns {void}
 */
function showDay(message, day) {
  const line = /** @type {Element} */ (dayLine.content.firstElementChild.cloneNode(true));
  const yesterday = new Date();
  yesterday.setDate(yesterday.getDate() - 1);
  const near = { [shownOn]: "Today", [fullDate(yesterday)]: "Yesterday" };
  // The id keeps the line apart from the messages when the list is updated.
  line.id = `day-${messageNumber(message)}`;
  line.textContent = near[day] ?? day;
  message.before(line);
}

/**
 * Shows where each day begins, and marks the messages that continue the block of the previous one.
 * @returns {void}
 */
export function joinMessages() {
  for (const line of findAll(messageList(), ".day")) line.remove();
  let previous = { author: "", day: "", at: 0 };
  for (const message of messages()) {
    const time = message.querySelector("time");
    // A message that could not be drawn has no time.
    const day = time?.title ?? previous.day;
    const at = Date.parse(time?.dateTime);
    // A deleted message has no author, and the block goes on after it.
    const author = message.querySelector("b")?.textContent;
    const sameDay = day === previous.day;
    const continues = sameDay && author === previous.author && at - previous.at < LONGEST_PAUSE
      && !message.querySelector(".quote");
    if (!sameDay) showDay(message, day);
    message.toggleAttribute("data-joined", continues);
    previous = author === undefined && sameDay ? previous : { author, day, at };
  }
}
