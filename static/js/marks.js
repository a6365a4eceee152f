/** Fragments are the same for everybody. This marks what is mine in them, and adds what need not be sent with each. */

import { find, findAll, messageForm, messageList } from "./page.js";
import { me, place, recall } from "./session.js";

/** The menu of a message, which follows its time. A message that was deleted or could not be drawn has neither. */
const change = /** @type {HTMLTemplateElement} */ (find("#change"));

/**
 * @param {ParentNode} parent
 * @returns {void}
 */
export function mark(parent) {
  for (const link of findAll(parent, "a[data-group-name], .nav__mentions, .nav__all")) {
    const address = link.getAttribute("href");
    link.ariaCurrent = address === place() ? "page" : null;
    link.toggleAttribute("data-draft", address !== place() && Boolean(recall(`draft.${address}`)));
  }
  for (const group of findAll(parent, "[data-group]")) {
    const listed = document.getElementById(`listed-${group.dataset.group}`);
    group.toggleAttribute("data-joined", listed?.matches("[data-joined]") ?? false);
    group.toggleAttribute("data-news", listed?.matches("[data-news]:not([data-muted])") ?? false);
  }
  for (const reaction of findAll(parent, ".reactions .chip")) {
    reaction.ariaPressed = String(document.getElementById(`my-${reaction.id}`) !== null);
  }
  const { at } = (/** @type {HTMLElement | null} */ (parent.querySelector("#messages-list")) ?? messageList()).dataset;
  for (const message of findAll(parent, ".message")) {
    message.toggleAttribute("data-at", message.id === `message-${at}`);
    message.toggleAttribute("data-mine", message.dataset.user === me);
    message.toggleAttribute("data-open", find(`#${message.id.replace("message", "form")}`) !== null);
    // The arrow keys move through the messages. The Tab key does not.
    message.tabIndex = -1;
  }
  for (const time of findAll(parent, ".message > b + a:not(:has(+ .change))")) time.after(change.content.cloneNode(true));
  for (const name of findAll(parent, ".mention, .quote[data-user]")) {
    const { user = me } = name.dataset;
    name.toggleAttribute("data-me", user === me && !name.closest("[data-mine]"));
  }
  // Hides me, and people who are already listed in another list.
  for (const person of findAll(parent, "[id^=online]")) {
    const { user } = person.dataset;
    person.hidden = user === me || document.getElementById(`mine-${user}`) !== null;
  }
}

/** The form of a message is opened and closed in several ways. */
new MutationObserver(() => mark(document)).observe(messageForm, { childList: true });
