/** The chat: connects the topics, which have a module each, to the hooks of the socket. */

import { dropStaleCompletions, focusMessageForm, takeIdleFocus } from "./composer.js";
import { mark } from "./marks.js";
import { joinMessages, localiseTimes } from "./messages.js";
import { post, resend, sendDue, settle } from "./outbox.js";
import { closePopover, find, messageBox, messageList, roomId } from "./page.js";
import { completeReaction, keepQuickBar } from "./reactions.js";
import { askForRoom, followHeading, forgetAsked, giveUpDestination, openRoom } from "./rooms.js";
import { hooks, on } from "./runtime.js";
import { askForOlder, noteView, restoreView, stopAwaitingOlder } from "./scroll.js";
import { arrive, identify, leave } from "./session.js";
import {
  forgetSeen, reportRead, showNewLine, showTitle, takeMessages, takeMyRead, takeNews,
} from "./unread.js";

/**
 * The element that had the focus before a push.
 * @type {Element | null}
 */
let focused = null;

hooks.opening = identify;

hooks.closed = () => {
  leave();
  forgetAsked();
  stopAwaitingOlder();
  forgetSeen();
};

hooks.tick = () => {
  resend();
  reportRead();
};

hooks.action = (action, data, control) => {
  if (control.closest("[data-room]")) data.room = roomId();
  switch (action) {
    case "New message":
      post();
      return true;
    case "Older messages":
      askForOlder();
      return true;
    case "React":
      completeReaction(data, control);
      return false;
    default:
      return false;
  }
};

hooks.before = ({ fragment, selector }) => {
  focused = document.activeElement;
  noteView();
  localiseTimes(fragment);
  mark(fragment);
  const isNotice = selector === "#notice";
  settle(fragment, isNotice);
  // A notice without a key is not about a message, but about a change of room or a search, for example.
  if (!isNotice || fragment.querySelector("[data-key]")) return;
  stopAwaitingOlder();
  closePopover();
  giveUpDestination();
};

hooks.after = ({ selector, swap, version, fragment }) => {
  if (version) messageList().dataset.version = version;
  if (selector === "#group-name") followHeading();
  if (selector === "#logged-user") {
    arrive();
    sendDue({ arrived: true });
    askForRoom();
  }
  if (selector === "#message-form") focusMessageForm();
  if (selector === "#my-read") takeMyRead();
  if (/user|my|group|lobby/.test(selector)) mark(document);
  takeNews(fragment);
  const hasMessages = fragment.querySelector(".message") !== null;
  if (hasMessages) joinMessages();
  const entered = openRoom();
  if (swap === "append") takeMessages(fragment);
  showNewLine(entered);
  showTitle();
  if (swap === "prepend") stopAwaitingOlder();
  restoreView(swap === "append" && hasMessages);
  keepQuickBar();
  if (focused !== document.activeElement) takeIdleFocus();
  dropStaleCompletions();
  reportRead();
};

on("click", ({ target }) => {
  const { dismiss } = target.dataset;
  if (!dismiss) return;
  find(dismiss).replaceChildren();
  messageBox.focus();
});

localiseTimes(document);
joinMessages();
openRoom();
