/** Unread messages: reports what I have read, marks rooms with news, and shows where I left off. */

import { messageNumber, messages } from "./messages.js";
import { find, findAll, messageList, roomId, roomTitle } from "./page.js";
import { on, send } from "./runtime.js";
import { isAtEnd, showAt, showPart } from "./scroll.js";
import { me, present } from "./session.js";

/** The shortest time between two `Read` actions. */
const INTERVAL = 2000;

/** A report younger than this when the socket closes may be lost. */
const UNSURE = 10_000;

const icon = /** @type {HTMLLinkElement} */ (find("link[rel=icon]"));
const icons = { read: icon.href, unread: icon.dataset.unread };

/** The id of the last message that I have seen in this room. */
let seen = "";

/**
 * The newest message I have seen in each room, if not reported yet. Includes rooms that I have left.
 * @type {Map<string, number>}
 */
const unreported = new Map();

/**
 * The newest message I have reported in each room, and when.
 * @type {Map<string, { message: number, at: number }>}
 */
const reported = new Map();
let reportedAt = 0;

/** The messages to everybody that have been counted since the page was loaded: an edit may make one so again. */
const countedHere = new Set();

/** This visit to the room: up to where I had read it, whether I have marked it as unread myself, and whether it has a line. */
let visit = { room: "", read: 0, marked: false, hasLine: false };

/** @returns {boolean} whether I see the end of the conversation */
function isWatching() {
  return isAtEnd() && !document.hidden && document.hasFocus();
}

/**
 * @returns {HTMLElement | undefined} the room that is shown, in my lists
 */
function currentItem() {
  return find("#aside a[aria-current]")?.closest("li");
}

/** @returns {void} */
export function reportRead() {
  const last = messages().at(-1);
  if (last && isWatching() && !visit.marked) {
    const item = currentItem();
    item?.removeAttribute("data-news");
    if (item) countMentions(item, 0);
    if (last.id !== seen) {
      seen = last.id;
      unreported.set(roomId(), messageNumber(last));
    }
  }
  if (unreported.size && present && Date.now() - reportedAt >= INTERVAL) sendReport();
}

/**
 * Reports what I have read at once: the lists of another room depend on it.
 * @returns {void}
 */
export function reportAllRead() {
  while (unreported.size && sendReport());
}

/**
 * @returns {boolean} whether a report was sent
 */
function sendReport() {
  const [[room, message]] = unreported;
  if (!send("Read", { message, room })) return false;
  reportedAt = Date.now();
  reported.set(room, { message, at: reportedAt });
  unreported.delete(room);
  return true;
}

/**
 * A new socket reports again, because the last reports on the old one may be lost.
 * @returns {void}
 */
export function forgetSeen() {
  seen = "";
  for (const [room, { message, at }] of reported) {
    if (Date.now() - at < UNSURE && !unreported.has(room)) unreported.set(room, message);
  }
}

/**
 * Marks the groups that have news.
 * @param {DocumentFragment} fragment
 * @returns {void}
 */
export function takeNews(fragment) {
  for (const { id, dataset } of findAll(fragment, "[id^=news-][data-message]")) {
    const item = document.getElementById(id)?.closest("li");
    if (!item) continue;
    const read = reported.get(id.slice("news-".length))?.message ?? 0;
    // An older message may be in the news, because an edit made it mention everybody.
    const known = Math.max(read, Number(item.dataset.counted));
    if (dataset.user === me || Number(dataset.message) <= known) continue;
    item.setAttribute("data-news", "");
    if (item.matches("[data-muted]")) continue;
    const here = (dataset.here ?? "").split(" ").map((one) => one.split(":"));
    const isNew = ([message, author]) => author && author !== me && Number(message) > known && !countedHere.has(message);
    const added = here.filter(isNew);
    for (const [message] of added) countedHere.add(message);
    addMentions(item, added.length);
  }
}

/**
 * @param {HTMLElement} item a group in my list
 * @param {number} count
 * @returns {void}
 */
function countMentions(item, count) {
  if (count) item.dataset.mentions = String(count);
  else delete item.dataset.mentions;
  const badge = /** @type {HTMLElement | null} */ (item.querySelector("b.badge"));
  if (!badge) return;
  badge.textContent = count > 99 ? "99+" : String(count || "");
  badge.hidden = !count;
}

/**
 * @param {HTMLElement} item
 * @param {number} more
 * @returns {void}
 */
function addMentions(item, more) {
  if (more) countMentions(item, Number(item.dataset.mentions ?? 0) + more);
}

/**
 * @param {DocumentFragment} fragment
 * @returns {number} how many messages of other people it contains
 */
export function countOfOthers(fragment) {
  return findAll(fragment, ".message[data-user]").filter(({ dataset }) => dataset.user !== me).length;
}

/**
 * A message has arrived in the room. If I do not see it, the room has news.
 * @param {DocumentFragment} fragment
 * @returns {void}
 */
export function takeMessages(fragment) {
  const item = currentItem();
  if (!countOfOthers(fragment) || isWatching() || !item) return;
  item.setAttribute("data-news", "");
  const mentions = findAll(fragment, ".message:has([data-me])");
  addMentions(item, mentions.filter((message) => messageNumber(message) > Number(item.dataset.counted)).length);
}

/**
 * Up to where I have read the room, when I enter it or mark it as unread.
 * @returns {void}
 */
export function takeMyRead() {
  const { room, read, marked } = find("#my-read [data-room]").dataset;
  const isMarked = marked !== undefined;
  // After a reconnect the visit goes on.
  if (room === visit.room && !isMarked) return;
  visit = { room, read: Number(read), marked: isMarked, hasLine: false };
  seen = "";
  if (isMarked) showNewLine(true);
}

/**
 * Marks the first message that I have not read. While I see the end of the conversation, nothing is new.
 * @param {boolean} entered whether I have just entered the room
 * @returns {void}
 */
export function showNewLine(entered) {
  const isHere = visit.room === roomId();
  if (!entered && !(isHere && visit.hasLine) && isWatching()) {
    const last = messages().at(-1);
    if (last && isHere) visit.read = messageNumber(last);
    return;
  }
  const isNew = (message) => messageNumber(message) > visit.read && message.dataset.user !== me;
  const first = isHere && messages().find(isNew);
  for (const message of findAll(messageList(), "[data-new]")) if (message !== first) message.removeAttribute("data-new");
  if (!first) return;
  // The attribute is lost whenever the message changes.
  first.setAttribute("data-new", "");
  visit.hasLine = true;
  if (!entered) return;
  showAt(first);
  // What I have not read begins further up than this page.
  const [oldest] = messages();
  if (messageNumber(oldest) > visit.read && find("#messages-older[data-more=true]")) showPart(visit.read);
}

/** @returns {void} */
export function showTitle() {
  const title = roomTitle();
  if (!title) return;
  const counted = findAll(document, "#aside [data-unread], #groups-list [data-mentions]:not([data-muted])");
  const numbers = counted.map(({ dataset }) => Number(dataset.unread ?? dataset.mentions));
  const unread = numbers.reduce((sum, number) => sum + number, 0);
  document.title = `${unread ? `(${unread}) ` : ""}${title} · Overwire`;
  const isWaiting = unread > 0 || find("#groups-list [data-news]:not([data-muted])") !== null;
  icon.href = isWaiting ? icons.unread : icons.read;
}

on("keydown", (event) => {
  if (event.key !== "Escape" || !event.shiftKey) return;
  event.preventDefault();
  send("Mark all as read", {});
});

on("focus", reportRead, window);
