/** Notifications: says whether I look at this tab, and shows the messages that the server tells me of. */

import { find } from "./page.js";
import { goTo } from "./rooms.js";
import { on, root, send } from "./runtime.js";
import { present } from "./session.js";

const { locks, serviceWorker } = navigator;

/** Tomorrow begins at eight o'clock. */
const TOMORROW = 24 + 8;

/** For how long the other tabs leave a message to the one that shows it, in milliseconds. */
const HELD = 30_000;

/** Whether the server knows that I look at this tab. */
let reportedInView = false;

/**
 * @returns {boolean} whether I see this tab and use it
 */
function isInView() {
  return !document.hidden && document.hasFocus();
}

/** @returns {void} */
export function reportView() {
  const inView = isInView() && "on" in find("#my-notifications").dataset;
  if (present && inView !== reportedInView && send("In view", { on: inView })) reportedInView = inView;
}

/**
 * A new socket is not in view until it says so.
 * @returns {void}
 */
export function forgetView() {
  reportedInView = false;
}

/**
 * Shows in the settings what this browser allows, and installs what shows notifications.
 * @returns {void}
 */
function showPermission() {
  const permission = serviceWorker && window.Notification?.permission;
  root.dataset.notify = permission ?? "missing";
  if (permission === "granted") void serviceWorker.register("/service-worker.js");
}

/** Whether the server knows where to notify this browser when it shows no page. */
let subscribed = false;

/**
 * Subscribes this browser to notifications, if I am registered and want them.
 * @returns {Promise<void>}
 */
export async function subscribe() {
  const { key } = find("#my-notifications").dataset;
  const wanted = key !== undefined && root.dataset.notify === "granted";
  if (wanted === subscribed) return;
  subscribed = wanted;
  if (!wanted) return;
  const { pushManager } = await serviceWorker.ready;
  const options = { userVisibleOnly: true, applicationServerKey: key };
  try {
    const { endpoint, keys } = (await pushManager.subscribe(options)).toJSON();
    subscribed = send("Subscribe", { endpoint, ...keys });
  } catch {
    // This browser has no push service, or is subscribed with the key of another database.
    subscribed = await (await pushManager.getSubscription())?.unsubscribe() !== true;
  }
}

/** @returns {Promise<void>} */
async function ask() {
  await window.Notification?.requestPermission();
  showPermission();
  if (root.dataset.notify !== "granted") return;
  send("Set notifications", { on: true });
  void subscribe();
}

/**
 * @param {Record<string, any>} data the change, which may be completed
 * @returns {boolean} whether it waits for the browser's permission
 */
export function completeSetting(data) {
  if (data.quiet === "tomorrow") {
    data.quiet = Math.ceil((new Date().setHours(TOMORROW, 0, 0) - Date.now()) / 60_000);
  }
  if (data.sounds) playSound();
  if (data.on) void ask();
  return data.on === true;
}

/**
 * Shows the message that the server has told me of, in one of my tabs.
 * @returns {void}
 */
export function notify() {
  const message = find("#notification [data-message]");
  if (root.dataset.notify !== "granted" || isInView()) return;
  const { message: tag, title, address } = message.dataset;
  void locks.request(`message-${tag}`, { ifAvailable: true }, async (lock) => {
    if (!lock) return;
    const { active } = await serviceWorker.ready;
    active.postMessage({ tag, title, body: message.textContent, address });
    if ("sounds" in find("#my-notifications").dataset) playSound();
    await new Promise((resolve) => {
      setTimeout(resolve, HELD);
    });
  });
}

/** @returns {void} */
function playSound() {
  const audio = new AudioContext();
  const tone = audio.createOscillator();
  const volume = audio.createGain();
  const end = audio.currentTime + 0.4;
  volume.gain.setValueAtTime(0.2, audio.currentTime);
  volume.gain.exponentialRampToValueAtTime(0.001, end);
  tone.connect(volume).connect(audio.destination);
  tone.onended = () => audio.close();
  tone.start();
  tone.stop(end);
}

on("visibilitychange", reportView);
on("focus", reportView, window);
on("blur", reportView, window);

// A click on a notification leads to its message.
if (serviceWorker) serviceWorker.onmessage = ({ data }) => goTo(data);

showPermission();
