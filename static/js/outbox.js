/** My messages that are not settled yet: they survive a reload, are sent again, and come back if refused. */

import { append, isBlank, replyTo, takeOriginal, write } from "./composer.js";
import {
  filesToSend, focusRefused, giveBack, isUploading, keepFiles, renewFiles, sendFiles, showUploads, takeFiles,
} from "./files.js";
import { clearNotice, find, findAll, messageBox, roomAt, roomTitle } from "./page.js";
import { root, send } from "./runtime.js";
import { showEnd } from "./scroll.js";
import { destination, me, place, present, recall, recalled, remember, roomNamed, titleOf } from "./session.js";

/** A message without an answer is sent again after this time. */
const RESEND_AFTER = 5000;

/** The most messages sent at once: on a new socket, and otherwise. */
const MOST_ON_ARRIVAL = 99;
const MOST_LATER = 9;

/**
 * A message that the server has neither confirmed nor refused.
 * @typedef {object} Unsettled
 * @property {string} key makes sending it again harmless
 * @property {string} message
 * @property {import("./files.js").Stored[]} files once all of them are on the server
 * @property {string} [room] the id of its room; missing if that had not arrived, so that only its address is known
 * @property {string} to the address of its room
 * @property {string} title the title of its room
 * @property {string} user my user name when I wrote it
 * @property {import("./composer.js").Original | null} [original] what it replies to
 * @property {number} [sent] when it was last sent
 * @property {"refused" | "unsure"} [state] missing while it waits
 * @property {string} [reason]
 */

/** @type {Unsettled[]} */
let unsettled = recall("unsettled") ?? [];

// A file that was under way when the page was left is no longer there.
for (const one of unsettled) {
  if (isUploading(one.key)) one.state = "refused";
}
keepFiles(unsettled.map(({ key }) => key));

const waitingList = find("#waiting");
const waitingTemplate = /** @type {HTMLTemplateElement} */ (find("#waiting-message"));

/**
 * Sends the text in the box, now or as soon as possible.
 * @returns {void}
 */
export function post() {
  const message = messageBox.value;
  messageBox.focus();
  const files = filesToSend();
  if (files === null) focusRefused();
  if (files === null || !message.trim() && !files || !roomNamed(place())) return;
  const { key } = add(message, me);
  sendFiles(key, settleFiles);
  sendDue();
  showEnd();
}

/**
 * The files of a message are on the server, or one of them was refused.
 * @param {string} key
 * @param {string} [refusal]
 * @returns {void}
 */
function settleFiles(key, refusal) {
  const one = withKey(key);
  // The file says why. Another one may have been refused before it.
  if (!refusal) one.files = takeFiles(key);
  else if (!one.state) takeBack(one);
  sendDue();
}

/**
 * @param {string} wanted
 * @returns {Unsettled | undefined} the message with that key
 */
function withKey(wanted) {
  return unsettled.find(({ key }) => key === wanted);
}

/**
 * @param {string} message the text in the box, which is emptied
 * @param {string} user
 * @returns {Unsettled}
 */
function add(message, user) {
  const one = {
    key: nextKey(),
    message,
    files: [],
    room: roomAt(place()),
    to: place(),
    title: destination ? titleOf(place()) : roomTitle(),
    user,
    original: takeOriginal(),
  };
  unsettled.push(one);
  write("");
  showUnsettled();
  return one;
}

/**
 * I am somebody else now, and am told so. Drafts are not sent under my new name unless I ask for that.
 * @param {string} former who I was
 * @returns {void}
 */
export function becomeAnother(former) {
  if (messageBox.value.trim()) add(messageBox.value, former);
  for (const to of recalled("draft.")) {
    const message = recall(`draft.${to}`);
    if (!message?.trim()) continue;
    unsettled.push({ key: freshKey(), message, files: [], to, title: titleOf(to), user: former, state: "refused" });
    remember(`draft.${to}`, "");
  }
  renewFiles();
  const { content } = /** @type {HTMLTemplateElement} */ (find("#another-user"));
  const notice = find("#notice");
  notice.replaceChildren(content.cloneNode(true));
  const words = notice.querySelector(".notice__text");
  const name = find("#logged-user .who__name").textContent;
  words.textContent = words.textContent.replace("{former}", former).replace("{me}", name);
}

/**
 * @returns {string} first the key of the page, in case the browser has already sent the form without this script
 */
function nextKey() {
  const field = /** @type {HTMLInputElement} */ (messageBox.form.elements.namedItem("key"));
  const { value } = field;
  field.value = "";
  return value || freshKey();
}

/**
 * A random UUID. Without https, browsers have no `randomUUID`.
 * @returns {string}
 */
function freshKey() {
  if (crypto.randomUUID) return crypto.randomUUID();
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  // Version 4, and the variant of RFC 9562.
  bytes[6] = (bytes[6] & 0x0f) | 0x40;
  bytes[8] = (bytes[8] & 0x3f) | 0x80;
  const digits = Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
  return digits.replace(/(.{8})(.{4})(.{4})(.{4})(.{12})/, "$1-$2-$3-$4-$5");
}

/**
 * Sends the messages that wait, and again those without an answer.
 * @param {{ arrived?: boolean }} [when] on a new socket, all unsettled messages are due
 * @returns {void}
 */
export function sendDue({ arrived = false } = {}) {
  const now = Date.now();
  const due = unsettled.filter(({ key, state, sent = 0 }) => {
    return present && !state && !isUploading(key) && (arrived || now - sent >= RESEND_AFTER);
  });
  for (const one of due.slice(0, arrived ? MOST_ON_ARRIVAL : MOST_LATER)) sendOne(one);
  showUnsettled();
}

/**
 * @param {Unsettled} one
 * @returns {void}
 */
function sendOne(one) {
  const { key, message, room, to, original, files = [] } = one;
  // It was written before the server assigned a user.
  one.user ||= me;
  const where = room ? { room } : roomNamed(to);
  if (one.user !== me || !where) {
    // I am another user now, so it is not sent under this name. Or its address is not that of a room.
    one.state = one.sent ? "unsure" : "refused";
    return;
  }
  const ids = files.map(({ id }) => id);
  if (send("New message", { message, ...where, key, reply_to: original?.id, files: ids })) one.sent = Date.now();
}

/** @returns {void} */
export function resend() {
  if (unsettled.length) sendDue();
}

/**
 * Settles the messages whose keys are in a fragment: in a message, or in a refusal.
 * @param {DocumentFragment} fragment
 * @param {boolean} refused
 * @returns {void}
 */
export function settle(fragment, refused) {
  for (const { dataset } of findAll(fragment, "[data-key]:not([data-tone=wait])")) {
    const one = withKey(dataset.key);
    if (!one) continue;
    if (!refused) {
      drop(one);
      clearNotice();
      find("#room-welcome").replaceChildren();
    } else takeBack(one, fragment.querySelector(".notice__text").textContent);
  }
}

/**
 * A message is not sent. It returns to the composer, if that is empty.
 * @param {Unsettled} one
 * @param {string} [reason]
 * @returns {void}
 */
function takeBack(one, reason) {
  if (one.to === place() && isBlank() && filesToSend() === 0) {
    edit(one.key);
    return;
  }
  one.state = "refused";
  one.reason = reason;
  showUnsettled();
}

/**
 * @param {string} key
 * @returns {string} the address of the room that the message has to be edited in: its own if it has files, which can only be sent there
 */
export function roomToEdit(key) {
  const { to, files } = withKey(key);
  return files?.length || document.getElementById(key).querySelector(".upload") ? to : place();
}

/**
 * A message returns to the composer.
 * @param {string} key
 * @returns {void}
 */
export function edit(key) {
  const one = withKey(key);
  drop(one);
  if (one.to === place()) replyTo(one.original);
  append(one.message);
  giveBack(key, one.files, one);
}

/**
 * A message is not sent.
 * @param {string} key
 * @returns {void}
 */
export function discard(key) {
  takeFiles(key);
  drop(withKey(key));
}

/**
 * @param {Unsettled} one
 * @returns {void}
 */
function drop(one) {
  unsettled = unsettled.filter((other) => other !== one);
  document.getElementById(one.key).remove();
  showUnsettled();
}

/**
 * Shows the unsettled messages and saves them.
 * @returns {void}
 */
export function showUnsettled() {
  remember("unsettled", unsettled);
  root.dataset.pending = String(unsettled.filter(({ state }) => !state).length);
  for (const one of unsettled) {
    const { key, to, state = "waiting" } = one;
    const node = document.getElementById(key) ?? waitingList.appendChild(blankWaiting());
    node.id = key;
    node.dataset.state = state;
    node.toggleAttribute("data-unsent", !one.state && !one.sent);
    sign(node.querySelector("b"));
    // A waiting message is shown only in its room, a refused one everywhere.
    node.hidden = !one.state && to !== place();
    for (const slot of findAll(node, "[data-slot]")) slot.textContent = one[slot.dataset.slot] || names(one);
  }
  showUploads();
}

/**
 * @param {Unsettled} one
 * @returns {string} what stands for the text of a message that has none
 */
function names({ files = [] }) {
  return files.map(({ name }) => name).join(", ");
}

/** @returns {HTMLElement} */
function blankWaiting() {
  return /** @type {HTMLElement} */ (waitingTemplate.content.firstElementChild.cloneNode(true));
}

/**
 * Shows above a message who I am, once that is known.
 * @param {HTMLElement} name
 * @returns {void}
 */
function sign(name) {
  const face = find("#logged-user .face");
  if (!face) return;
  name.className = face.className.replace("face ", "");
  name.dataset.face = face.textContent;
  name.textContent = find("#logged-user .who__name").textContent;
}
