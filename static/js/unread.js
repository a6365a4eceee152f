/** Unread messages: reports what I have read, and counts the unread conversations. */

import { messageNumber, messages } from "./messages.js";
import { findAll, messageList, roomId, roomTitle } from "./page.js";
import { send } from "./runtime.js";
import { following } from "./scroll.js";
import { present } from "./session.js";

/** The shortest time between two `Read` actions. */
const INTERVAL = 2000;

/** The id of the last message that I have seen. */
let seen = "";

/**
 * The newest message I have seen in each room, if not reported yet. Includes rooms that I have left.
 * @type {Map<string, number>}
 */
const unreported = new Map();
let reportedAt = 0;

/** @returns {void} */
export function reportRead() {
  const last = messages().at(-1);
  const watching = following && !document.hidden;
  if (last && messageList().dataset.reads && watching && last.id !== seen) {
    seen = last.id;
    unreported.set(roomId(), messageNumber(last));
  }
  if (!unreported.size || !present || Date.now() - reportedAt < INTERVAL) return;
  const [[room, message]] = unreported;
  reportedAt = Date.now();
  send("Read", { message, room });
  unreported.delete(room);
}

/**
 * A new socket reports again, because the last report on the old one may be lost.
 * @returns {void}
 */
export function forgetSeen() {
  seen = "";
}

/** @returns {void} */
export function showTitle() {
  const title = roomTitle();
  if (!title) return;
  const unread = findAll(document, "#users-mine [data-unread]").length;
  document.title = `${unread ? `(${unread}) ` : ""}${title} · Overwire`;
}
