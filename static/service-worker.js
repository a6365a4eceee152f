/** Shows notifications, and leads from them to their messages. It caches nothing. */

/**
 * A message that somebody is notified of.
 * @typedef {object} Told
 * @property {string} tag the id of the message, which is shown once
 * @property {string} title
 * @property {string} body
 * @property {string} address
 */

/**
 * @param {Told} told
 * @param {string} [tab] the id of the tab whose person is notified
 * @returns {Promise<void>}
 */
function show({ tag, title, body, address }, tab) {
  return self.registration.showNotification(title, { tag, body, data: { address, tab } });
}

/**
 * @param {{ address: string, tab?: string }} data
 * @returns {Promise<any>}
 */
async function open({ address, tab }) {
  const isChat = ({ url }) => new URL(url).pathname.startsWith("/chat/");
  const tabs = await self.clients.matchAll({ type: "window", includeUncontrolled: true });
  const shown = tabs.find(({ id }) => id === tab) ?? tabs.find(isChat);
  if (!shown) return self.clients.openWindow(address);
  shown.postMessage(address);
  return shown.focus();
}

/**
 * A page in view shows the message itself.
 * @param {Told} told
 * @returns {Promise<void>}
 */
async function receive(told) {
  const tabs = await self.clients.matchAll({ type: "window" });
  if (!tabs.some(({ focused }) => focused)) await show(told);
}

self.addEventListener("push", (event) => event.waitUntil(receive(event.data.json())));

self.addEventListener("message", (event) => event.waitUntil(show(event.data, event.source.id)));

self.addEventListener("notificationclick", (event) => {
  event.notification.close();
  event.waitUntil(open(event.notification.data));
});
