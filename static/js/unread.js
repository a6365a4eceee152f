/** Unread messages: reports what I have read, marks rooms with news, and shows where I left off. */

import { messageNumber, messages } from "./messages.js";
import { find, findAll, messageList, roomAddress, roomId, roomTitle } from "./page.js";
import { on, send } from "./runtime.js";
import { isAtEnd, showAt, showPart } from "./scroll.js";
import { destination, me, present, recall, remember } from "./session.js";

/** The shortest time between two `Read` actions: in a group, which many read, and in a private room. */
const INTERVAL = 2000;
const PRIVATE_INTERVAL = 300;

/** A report younger than this when the socket closes may be lost. */
const UNSURE = 10_000;

const icon = /** @type {HTMLLinkElement} */ (find("link[rel=icon]"));
const mentionsLink = /** @type {HTMLAnchorElement} */ (find(".nav__mentions"));
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

/** @type {number | undefined} */
let timer;

/** How many messages are waiting, as the title says. */
let waiting = NaN;

/** This visit to the room: up to where I had read it, whether I have marked it as unread myself, and whether it has a line. */
let visit = { room: "", read: 0, marked: false, hasLine: false };

/** @returns {boolean} whether I see the end of the conversation */
function isWatching() {
  return isAtEnd() && !document.hidden && document.hasFocus();
}

/**
 * @returns {HTMLElement | null} the room that is shown, in my lists
 */
function currentItem() {
  // While I wait for another room, that one is marked in the lists.
  return destination ? null : find("#aside li:has(> a[aria-current])");
}

/**
 * Notes what I see. After a load, that waits until it is known where I left off.
 * @returns {void}
 */
export function reportRead() {
  const last = messages().at(-1);
  if (last && visit.room === roomId() && isWatching() && !visit.marked) {
    const item = currentItem();
    item?.removeAttribute("data-news");
    item?.removeAttribute("data-unread");
    item?.querySelector("span.badge")?.remove();
    if (item) countMentions(item, new Set(), new Set());
    if (last.id !== seen) {
      seen = last.id;
      unreported.set(roomId(), messageNumber(last));
      remember("read", { room: roomId(), message: messageNumber(last) });
    }
    showTitle();
  }
  reportInTime();
}

/** @returns {void} */
function reportInTime() {
  clearTimeout(timer);
  if (!unreported.size || !present) return;
  const interval = roomAddress()?.startsWith("/chat/@") ? PRIVATE_INTERVAL : INTERVAL;
  const wait = reportedAt + interval - Date.now();
  if (wait > 0) timer = setTimeout(reportInTime, wait);
  else sendReport();
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
    const read = readIn(item, id.slice("news-".length));
    // An older message may be in the news, because an edit made it mention everybody.
    const isNew = (message, author) => author !== me && Number(message) > read;
    if (isNew(dataset.message, dataset.user)) item.setAttribute("data-news", "");
    const here = ids(item, "here");
    for (const one of words(dataset.here)) {
      const [message, author] = one.split(":");
      if (isNew(message, author) && !item.matches("[data-muted]")) here.add(message);
    }
    for (const message of words(dataset.gone)) here.delete(message);
    countMentions(item, here);
  }
}

/**
 * @param {HTMLElement} item a group in my list
 * @param {string} room its id
 * @returns {number} the last message there that I have read, as far as this tab knows
 */
function readIn(item, room) {
  return Math.max(reported.get(room)?.message ?? 0, Number(item.dataset.read));
}

/**
 * @param {string} [text]
 * @returns {string[]}
 */
function words(text) {
  return text ? text.split(" ") : [];
}

/**
 * @param {HTMLElement} item a group in my list
 * @param {"here" | "named"} kind
 * @returns {Set<string>} the unread messages there that mention everybody, or me
 */
function ids(item, kind) {
  return new Set(words(item.dataset[kind]));
}

/**
 * @param {HTMLElement} item a group in my list
 * @param {Set<string>} here the unread messages there that mention everybody
 * @param {Set<string>} named those that mention me
 * @returns {void}
 */
function countMentions(item, here, named = ids(item, "named")) {
  item.dataset.here = [...here].join(" ");
  item.dataset.named = [...named].join(" ");
  const count = new Set([...here, ...named]).size;
  if (count) item.dataset.mentions = String(count);
  else delete item.dataset.mentions;
  const badge = /** @type {HTMLElement | null} */ (item.querySelector("b.badge"));
  if (!badge) return;
  badge.textContent = count > 99 ? "99+" : String(count || "");
  badge.hidden = !count;
}

/**
 * @param {DocumentFragment} fragment
 * @returns {HTMLElement[]} the messages of other people in it
 */
export function ofOthers(fragment) {
  return findAll(fragment, ".message[data-user]").filter(({ dataset }) => dataset.user !== me);
}

/**
 * Messages have arrived in the room, or have changed. If I do not see them, the room has news.
 * @param {DocumentFragment} fragment
 * @param {boolean} isAppended
 * @returns {void}
 */
export function takeMessages(fragment, isAppended) {
  const item = currentItem();
  if (!item) return;
  const isSeen = isWatching();
  if (isAppended && !isSeen && ofOthers(fragment).length) item.setAttribute("data-news", "");
  // A private room counts nothing here.
  if (!item.dataset.read) return;
  const [here, named] = [ids(item, "here"), ids(item, "named")];
  for (const message of findAll(fragment, ".message")) {
    const number = messageNumber(message);
    const id = String(number);
    const mentionsMe = message.matches(":has([data-me])");
    if (mentionsMe && !isSeen && !named.has(id) && number > readIn(item, roomId())) here.add(id);
    if (mentionsMe) continue;
    here.delete(id);
    named.delete(id);
  }
  countMentions(item, here, named);
}

/**
 * Up to where I have read the room, when I enter it or mark it as unread. A load shows the room before, and then
 * I may have scrolled already. A reload may overtake the report of what was on the page before.
 * @returns {void}
 */
export function takeMyRead() {
  const { room, read, marked } = find("#my-read [data-room]").dataset;
  const isMarked = marked !== undefined;
  // After a reconnect the visit goes on.
  if (room === visit.room && !isMarked) return;
  if (isMarked) remember("read", null);
  const before = recall("read");
  const known = before?.room === room ? before.message : 0;
  visit = { room, read: Math.max(Number(read), known), marked: isMarked, hasLine: false };
  seen = "";
  const wasLoaded = room === roomId() && isAtEnd();
  if (isMarked || wasLoaded) showNewLine(true);
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
  // What comes before the line may be read, and far up.
  first.removeAttribute("data-joined");
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
  if (unread > waiting && location.search === new URL(mentionsLink.href).search) {
    send("Search", { text: new URLSearchParams(location.search).get("q") });
  }
  waiting = unread;
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
