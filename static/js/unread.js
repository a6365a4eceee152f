/** What is unread: saying what I have read, and how many conversations have something new. */

import { messageNumber, messages } from "./messages.js";
import { findAll, messageList, roomId, roomTitle } from "./page.js";
import { send } from "./runtime.js";
import { following } from "./scroll.js";
import { present } from "./session.js";

/** How often the server is told. */
const INTERVAL = 2000;

/** The id of the last message that I have seen. */
let seen = "";

/**
 * What I have seen and not said yet, by room: also of rooms that I have left since.
 * @type {Map<string, number>}
 */
const unsaid = new Map();
let saidAt = 0;

/** @returns {void} */
export function sayWhatIsRead() {
  const last = messages().at(-1);
  const watching = following && !document.hidden;
  if (last && messageList().dataset.reads && watching && last.id !== seen) {
    seen = last.id;
    unsaid.set(roomId(), messageNumber(last));
  }
  if (!unsaid.size || !present || Date.now() - saidAt < INTERVAL) return;
  const [[room, message]] = unsaid;
  saidAt = Date.now();
  send("Read", { message, room });
  unsaid.delete(room);
}

/**
 * Another socket is told anew: it is not known what the last one heard.
 * @returns {void}
 */
export function forgetWhatIsSeen() {
  seen = "";
}

/** @returns {void} */
export function showTitle() {
  const title = roomTitle();
  if (!title) return;
  const unread = findAll(document, "#users-mine [data-unread]").length;
  document.title = `${unread ? `(${unread}) ` : ""}${title} · Overwire`;
}
