/**
 * The messages on the page: their ids, their times, the lines between days, which form a block, and how they are
 * announced and copied.
 */

import { filesOf, find, findAll, messageList, said, wordsOf } from "./page.js";
import { on } from "./runtime.js";
import { me } from "./session.js";

/** Messages of one person with less than this between them form one block. */
const LONGEST_PAUSE = 300_000;

/** How many announcements stay for those who read them later. */
const KEPT = 20;

const announcements = find("#announcements");

/** The bar of emojis on the message under the mouse or with the focus. */
const quickBar = find("#quick");

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

/**
 * For screen readers: says each new message of somebody else once, with its author.
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

/**
 * The name, the time, the selected part of the text and the files of a message.
 * @param {HTMLElement} message
 * @param {Range} chosen what is selected
 * @returns {string} empty if that ends before the text, or begins behind it
 */
function copied(message, chosen) {
  const words = (selector) => message.querySelector(selector)?.innerText.trim();
  const head = [words("b"), words("time")].filter(Boolean).join(", ");
  const text = part(message, chosen);
  if (text === "" && wordsOf(message)) return "";
  return [head, text, wordsOf(message) && filesOf(message)].filter(Boolean).join("\n");
}

/**
 * @param {HTMLElement} message
 * @param {Range} chosen
 * @returns {string} the selected part of the text, as it is shown
 */
function part(message, chosen) {
  const text = wordsOf(message);
  if (!text) return said(message);
  const range = document.createRange();
  range.selectNodeContents(text);
  const beginsBefore = range.compareBoundaryPoints(Range.START_TO_START, chosen) < 0;
  const endsBehind = range.compareBoundaryPoints(Range.END_TO_END, chosen) > 0;
  if (!beginsBefore && !endsBehind) return said(message);
  if (beginsBefore) range.setStart(chosen.startContainer, chosen.startOffset);
  if (endsBehind) range.setEnd(chosen.endContainer, chosen.endOffset);
  // Only a selection tells how a part of an element is shown.
  const selection = getSelection();
  const { anchorNode, anchorOffset, focusNode, focusOffset } = selection;
  selection.removeAllRanges();
  selection.addRange(range);
  const words = selection.toString().trim();
  selection.setBaseAndExtent(anchorNode, anchorOffset, focusNode, focusOffset);
  return words;
}

on("copy", (event) => {
  const selection = getSelection();
  const chosen = messages().filter((message) => selection.containsNode(message, true));
  // A part of one text is copied as it is.
  const name = chosen[0]?.querySelector("b");
  if (chosen.length < 2 && !(name && selection.containsNode(name, true))) return;
  const range = selection.getRangeAt(0).cloneRange();
  const texts = chosen.map((message) => copied(message, range)).filter(Boolean);
  event.clipboardData.setData("text/plain", texts.join("\n\n"));
  event.preventDefault();
});
