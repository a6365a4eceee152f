/** Keys: the switcher, moving between rooms and between messages, and the list of all keys. */

import { reply } from "./composer.js";
import { messages } from "./messages.js";
import { find, findAll, messageBox, messageForm, scroller } from "./page.js";
import { on } from "./runtime.js";

const switcher = find("#switcher");
const switcherField = /** @type {HTMLInputElement} */ (find("#switcher-text"));

/** A room in my lists with unread messages. */
const UNREAD = "[data-news]:not([data-muted]), [data-unread], [data-mentions]";

/** @returns {HTMLAnchorElement[]} the rooms that the switcher offers */
function offers() {
  return /** @type {HTMLAnchorElement[]} */ (findAll(switcher, "[role=option]"));
}

/**
 * @param {HTMLElement} [chosen] the first offer, unless the person has moved on
 * @returns {void}
 */
function choose(chosen = offers()[0]) {
  for (const offer of offers()) offer.ariaSelected = String(offer === chosen);
  switcherField.setAttribute("aria-activedescendant", chosen?.id ?? "");
  chosen?.scrollIntoView({ block: "nearest" });
}

/**
 * Shows what is unread beside the offers, and offers it first while nothing is typed.
 * @returns {void}
 */
export function offer() {
  for (const link of findAll(document, `:is(${UNREAD}) > a`).reverse()) {
    const offered = offers().find((one) => one.pathname === link.pathname);
    if (!offered) continue;
    offered.dataset.news = "";
    for (const sign of findAll(link, ".news, .badge")) offered.append(sign.cloneNode(true));
    if (!switcherField.value) offered.parentElement.prepend(offered);
  }
  choose();
}

/** @returns {void} */
function openSwitcher() {
  switcher.showPopover();
  switcherField.value = "";
  switcherField.focus();
  switcherField.form.requestSubmit();
}

/**
 * Enters the room above or below the current one in my lists.
 * @param {number} step
 * @param {boolean} unread whether rooms without unread messages are skipped
 * @returns {void}
 */
function changeRoom(step, unread) {
  const links = findAll(document, "#groups-list a, #users-mine a");
  const here = links.findIndex(({ ariaCurrent }) => ariaCurrent);
  const ordered = [...links.slice(here + 1), ...links.slice(0, Math.max(here, 0))];
  if (step < 0) ordered.reverse();
  ordered.find((link) => !unread || link.closest(UNREAD))?.click();
}

/**
 * Moves the focus to the message above or below, or to the last one in view.
 * @param {Element | null} message
 * @param {number} step
 * @returns {void}
 */
function changeMessage(message, step) {
  const all = messages();
  const { bottom } = scroller.getBoundingClientRect();
  const next = message
    ? all[all.indexOf(/** @type {HTMLElement} */ (message)) + step]
    : all.findLast((one) => one.getBoundingClientRect().top < bottom);
  next?.focus();
}

/**
 * Opens the form of a message.
 * @param {Element} message
 * @param {string} field what gets the focus
 * @returns {void}
 */
function openForm(message, field) {
  messageForm.dataset.focus = field;
  message.querySelector(".change")?.click();
}

on("keydown", (event) => {
  const { target, key, altKey, shiftKey } = event;
  const isMain = event.metaKey || event.ctrlKey;
  const step = { ArrowUp: -1, ArrowDown: 1 }[key];
  const isTyping = target.matches("input, textarea");
  const message = target.closest(".message");
  if (isMain && key.toLowerCase() === "k") openSwitcher();
  else if (target === switcherField && step) {
    const all = offers();
    const chosen = all.findIndex(({ ariaSelected }) => ariaSelected === "true");
    choose(all.at((chosen + step) % all.length));
  } else if (target === switcherField && key === "Enter") find("#switcher [aria-selected=true]")?.click();
  else if (altKey && step) changeRoom(step, shiftKey);
  else if (isTyping || isMain || altKey) return;
  else if (step && (message || target === scroller)) changeMessage(message, step);
  else if (key === "?") find("#keys").showPopover();
  else if (!message) return;
  else if (key === "r") reply(message);
  else if (key === "e" && message.matches("[data-mine]")) openForm(message, "textarea");
  else if (key === "+") openForm(message, "input");
  else if (key === "Escape" && !shiftKey) find("#new-messages").click();
  else return;
  event.preventDefault();
});
