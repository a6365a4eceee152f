/** The chat: connects the topics, which have a module each, to the hooks of the socket. */

import { checkWord, dropStale, showCompletions } from "./completions.js";
import { focusMessageForm, keepDeleted, keepOriginal, saveEdit, saveUnsaved, takeIdleFocus } from "./composer.js";
import { retryFiles, showUploads } from "./files.js";
import "./formatting.js";
import { mark } from "./marks.js";
import { offer } from "./keyboard.js";
import { announce, joinMessages, keepQuickBar, localiseTimes, messageNumber, passMidnight } from "./messages.js";
import { completeSetting, forgetView, notify, reportView, subscribe } from "./notifications.js";
import { becomeAnother, discard, edit, post, resend, roomToEdit, sendDue, settle } from "./outbox.js";
import { closePopover, find, findAll, messageBox, messageForm, messageList, roomId } from "./page.js";
import {
  askForRoom, enter, followHeading, forgetAsked, giveUpDestination, openRoom, reopenEdit, restoreEdit, search, showTopic,
  showTyped,
} from "./rooms.js";
import { hooks, on, send } from "./runtime.js";
import {
  askForNewer, askForOlder, noteView, openPart, restoreView, showWhole, stopAwaitingMessages, takePage,
} from "./scroll.js";
import { arrive, identify, leave, place } from "./session.js";
import {
  forgetSeen, ofOthers, reportRead, showNewLine, showTitle, takeMessages, takeMyRead, takeNews,
} from "./unread.js";

/**
 * A form that was sent. It closes when the server accepts what was typed; else that stays, with the reason below it.
 * @type {HTMLElement | null}
 */
let sentForm = null;

/**
 * The element that had the focus before a push.
 * @type {Element | null}
 */
let focused = null;

hooks.opening = identify;

hooks.closed = () => {
  leave();
  forgetAsked();
  stopAwaitingMessages();
  forgetSeen();
  forgetView();
};

hooks.tick = () => {
  passMidnight();
  resend();
  retryFiles();
  reportRead();
};

hooks.action = (action, data, control) => {
  if (control.closest("[data-room]")) data.room = roomId();
  const message = control.closest(".message");
  if (message) data.message = messageNumber(message);
  switch (action) {
    case "New message":
      post();
      return true;
    case "Older messages":
      askForOlder();
      return true;
    case "Newer messages":
      askForNewer();
      return true;
    case "Show messages":
      // A day begins where I am.
      data.since = new Date(`${data.day}T00:00`).getTime();
      closePopover();
      return false;
    case "Search":
      if (data.before) return false;
      search(data.text);
      return true;
    case "React":
      data.on ??= control.ariaPressed !== "true";
      return false;
    case "Change name":
    case "New group":
      sentForm = /** @type {HTMLElement | null} */ (control.closest("[popover]"));
      return false;
    case "Change topic":
      if (send(action, data)) closePopover();
      return true;
    case "Edit message":
      saveEdit(/** @type {HTMLFormElement} */ (control), data);
      return true;
    case "Set notifications":
      return completeSetting(data);
    default:
      return false;
  }
};

hooks.before = ({ fragment, selector }) => {
  focused = document.activeElement;
  noteView();
  localiseTimes(fragment);
  mark(fragment);
  if (selector === "#completions") dropStale(fragment);
  if (selector.startsWith("#form-")) keepDeleted(selector);
  const isNotice = selector === "#notice";
  settle(fragment, isNotice);
  // A notice without a key is not about a message, but about a change of room or a search, for example.
  if (!isNotice || fragment.querySelector("[data-key]")) return;
  stopAwaitingMessages();
  const reason = sentForm?.matches(":popover-open") && sentForm.querySelector("[role=alert]");
  const words = fragment.querySelector(".notice__text");
  sentForm = null;
  if (reason && words) {
    reason.textContent = words.textContent;
    fragment.replaceChildren();
    return;
  }
  closePopover();
  giveUpDestination();
  if (words) restoreEdit();
};

/** The form of a message takes space from the conversation, but must not hide its message. */
function showOpened() {
  const [form] = messageForm.children;
  const message = form && find(form.id.replace("form-", "#message-"));
  if (message) showWhole(message);
}

hooks.after = ({ selector, swap, version, fragment }) => {
  if (version) messageList().dataset.version = version;
  if (selector === "#group-name") {
    followHeading();
    showTyped();
  }
  if (selector === "#logged-user") {
    const former = arrive();
    if (former) becomeAnother(former);
    sendDue({ arrived: true });
    retryFiles(Infinity);
    saveUnsaved();
    askForRoom();
    reopenEdit();
  }
  if (selector === "#message-form") {
    restoreEdit();
    focusMessageForm();
  }
  if (selector === "#room-topic" || selector === "#room-menu") showTopic();
  if (selector.startsWith("[data-quotes")) keepOriginal();
  if (selector === "#rooms-found") offer();
  if (selector === "#new-group" || selector === "#name-form") {
    sentForm?.hidePopover();
    sentForm = null;
    // Whoever has made a group writes in it next.
    if (selector === "#new-group") find(".add:focus")?.blur();
  }
  if (selector === "#completions") showCompletions();
  if (selector === "#my-read") takeMyRead();
  if (selector === "#notifications") {
    // The button that had the focus is gone, or hidden.
    const { activeElement } = document;
    if (activeElement === document.body || !activeElement.checkVisibility()) {
      findAll(document, "#my-notifications:popover-open button").find((one) => one.checkVisibility())?.focus();
    }
    reportView();
    void subscribe();
  }
  if (selector === "#notification") notify();
  if (/user|my|group|lobby/.test(selector)) mark(document);
  takeNews(fragment);
  const hasMessages = fragment.querySelector(".message") !== null;
  if (hasMessages) joinMessages();
  const entered = openRoom();
  if (entered) showUploads();
  if (hasMessages) takeMessages(fragment, swap === "append");
  if (swap === "append") announce(fragment);
  if (selector === "#messages-list" && swap === "outer" && !entered) openPart();
  showNewLine(entered);
  showTitle();
  takePage(swap);
  restoreView(swap === "append" ? ofOthers(fragment) : []);
  if (selector === "#message-form") showOpened();
  keepQuickBar();
  checkWord();
  if (focused !== document.activeElement) takeIdleFocus();
  reportRead();
};

on("click", ({ target }) => {
  const { dismiss } = target.dataset;
  if (!dismiss) return;
  find(dismiss).replaceChildren();
  messageBox.focus();
});

on("click", ({ target }) => {
  const { back } = target.dataset;
  if (!back) return;
  const { id } = target.closest("[id]");
  if (back === "edit") {
    if (roomToEdit(id) !== place()) enter(roomToEdit(id), false);
    edit(id);
  } else discard(id);
  messageBox.focus();
}, find("#waiting"));

on("click", async ({ target }) => {
  const { copy } = target.dataset;
  if (!copy) return;
  await navigator.clipboard.writeText(new URL(copy, location.href).href);
  target.textContent = "Copied";
});

on("click", async ({ target }) => {
  if (!target.matches(".listing__copy")) return;
  await navigator.clipboard.writeText(target.parentElement.querySelector("code").textContent);
  target.dataset.copied = "";
});

document.documentElement.dataset.scripted = "";
localiseTimes(document);
joinMessages();
openRoom();
if (messageList().dataset.at) openPart();
