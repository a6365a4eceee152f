/** One socket: sends actions and applies the pushes that arrive. Knows nothing about the chat. */

/**
 * A change to the page, as the server sends it.
 * @typedef {object} Push
 * @property {string} selector
 * @property {string} html
 * @property {keyof typeof swaps} [swap] how to insert it, `inner` by default
 * @property {string} [version] the version of the room once the push is applied
 * @property {DocumentFragment} fragment the parsed HTML
 */

/**
 * What a page adds to the runtime.
 * @typedef {object} Hooks
 * @property {(query: Record<string, string>, protocols: string[]) => void} [opening]
 *   may extend what a new socket is opened with
 * @property {() => void} [closed] the socket has closed
 * @property {() => void} [tick] called every second, or four times a second without a socket
 * @property {(action: string, data: Record<string, any>, control: HTMLElement) => boolean} [action]
 *   may change the data; if it returns true, nothing is sent
 * @property {(push: Push) => void} [before] may change the fragment before it is inserted
 * @property {(push: Push) => void} [after] the push is applied
 */

/** @type {Hooks} */
export const hooks = {};

/** Has the attributes that styles and tests use, such as `data-connected`. */
export const root = document.documentElement;

const SHORTEST_PATIENCE = 5000;
const LONGEST_PATIENCE = 60_000;
const LONGEST_SILENCE = 20_000;
const LONGEST_RETRY = 30_000;
const SHORT_LIFE = 10_000;
const CLOSED_BY_POLICY = 1008;
const FORBIDDEN = 403;
/** After so many failures in a row, there may be a reason that the page itself can tell. */
const UNUSUAL_FAILURES = 2;
const { OPEN } = WebSocket;

/** @type {WebSocket | null} */
let socket = null;
let openedAt = 0;
/** When the last push arrived on this socket; 0 before the first. */
let receivedAt = 0;
/** When the request that still waits for an answer was sent; 0 if none does. */
let askedAt = 0;
/** How long an answer may take. */
let patience = SHORTEST_PATIENCE;
/** How many attempts in a row failed or did not last long. */
let failures = 0;
let retryAt = 0;
/** No socket is opened before this time. */
let blockedUntil = 0;
/** @type {number | undefined} */
let debounceTimer;

/**
 * @param {string} type
 * @param {(event: any) => void} listener
 * @param {EventTarget} [target]
 * @returns {void}
 */
export function on(type, listener, target = document) {
  target.addEventListener(type, listener);
}

/**
 * @param {string} action
 * @param {object} [data]
 * @returns {boolean} whether there was a socket to send it on
 */
export function send(action, data = {}) {
  if (socket?.readyState !== OPEN) return false;
  socket.send(JSON.stringify({ action, data }));
  return true;
}

/** @returns {void} */
function connect() {
  if (socket || Date.now() < blockedUntil) return;
  /** @type {Record<string, string>} */
  const query = {};
  const protocols = ["overwire.v1"];
  hooks.opening?.(query, protocols);
  socket = new WebSocket(`${document.body.dataset.socket}?${new URLSearchParams(query)}`, protocols);
  openedAt = Date.now();
  askedAt = openedAt;
  receivedAt = 0;
  socket.onopen = () => {
    root.dataset.connected = "true";
  };
  socket.onmessage = ({ data }) => {
    receivedAt = Date.now();
    askedAt = 0;
    failures = Math.min(failures, 1);
    patience = SHORTEST_PATIENCE;
    receive(data);
  };
  socket.onclose = ({ code }) => disconnect(code);
}

/**
 * @param {number} [code] the close code, if the tab did not close the socket itself
 * @returns {void}
 */
function disconnect(code) {
  if (!socket) return;
  socket.onopen = null;
  socket.onmessage = null;
  socket.onclose = null;
  socket.close();
  socket = null;
  root.dataset.connected = "false";
  const now = Date.now();
  failures = now - openedAt < SHORT_LIFE ? failures + 1 : 0;
  // A random delay, so that the tabs of a restarting server do not all reconnect at once.
  retryAt = now + Math.random() * Math.min(LONGEST_RETRY, 1000 * 2 ** failures);
  if (code === CLOSED_BY_POLICY) {
    blockedUntil = now + LONGEST_RETRY * (1 + Math.random());
    retryAt = blockedUntil;
  }
  if (failures === UNUSUAL_FAILURES && "guarded" in document.body.dataset) void reloadIfForbidden();
  hooks.closed?.();
}

/**
 * A person who may no longer open this page is told so, instead of waiting for a connection.
 * @returns {Promise<void>}
 */
async function reloadIfForbidden() {
  try {
    const { status } = await fetch(location.href, { method: "HEAD" });
    if (status === FORBIDDEN) location.reload();
  } catch {
    // There is no connection, and so no answer.
  }
}

/** @returns {void} */
function ping() {
  if (send("Ping")) askedAt = Date.now();
}

/**
 * Checks the socket when the tab becomes visible or the network is back: it may have died unnoticed.
 * @returns {void}
 */
function wake() {
  if (document.hidden) return;
  connect();
  ping();
}

/** @returns {void} */
function tick() {
  const now = Date.now();
  if (!socket) {
    if (now >= retryAt) connect();
  } else if (askedAt) {
    if (now - askedAt >= patience) giveUp();
  } else if (now - receivedAt >= LONGEST_SILENCE) {
    ping();
  }
  hooks.tick?.();
  setTimeout(tick, socket ? 1000 : 250);
}

/** @returns {void} */
function giveUp() {
  // If nothing has ever arrived, the network may just be slow.
  if (!receivedAt) patience = Math.min(LONGEST_PATIENCE, patience * 2);
  disconnect();
}

/**
 * @param {string} text
 * @returns {void}
 */
function receive(text) {
  try {
    const push = JSON.parse(text);
    const template = document.createElement("template");
    template.innerHTML = push.html;
    push.fragment = template.content;
    hooks.before?.(push);
    putInPlace(push);
    hooks.after?.(push);
  } catch (error) {
    // A push that fails must not stop the ones after it.
    console.warn(error);
  }
}

/**
 * @param {Push} push
 * @returns {void}
 */
function putInPlace({ selector, swap = "inner", fragment }) {
  const focused = /** @type {HTMLElement} */ (document.activeElement);
  for (const target of document.querySelectorAll(selector)) {
    swaps[swap](target, document.importNode(fragment, true));
  }
  // An element loses the focus when it is moved.
  if (focused !== document.activeElement) focused.focus({ preventScroll: true });
}

/** @satisfies {Record<string, (target: Element, fragment: DocumentFragment) => void>} */
const swaps = {
  inner: updateChildren,
  append: insert,
  prepend: (target, fragment) => insert(target, fragment, target.firstChild),
  before: (target, fragment) => insert(target.parentElement, fragment, target),
  outer: (target, fragment) => update(target, fragment.firstElementChild ?? fragment),
  remove: (target) => target.remove(),
};

/**
 * Inserts new elements, and updates those that are already there in place.
 * @param {Element} target
 * @param {DocumentFragment} fragment
 * @param {Node | null} [next]
 * @returns {void}
 */
function insert(target, fragment, next = null) {
  for (const node of [...fragment.children]) {
    const old = childWithId(target, node.id);
    if (old) update(old, node);
    else target.insertBefore(node, next);
  }
}

/**
 * Makes `old` equal to `node`. Nodes that do not change are kept, with their focus and selection.
 * @param {any} old
 * @param {any} node
 * @returns {void}
 */
function update(old, node) {
  if (old.isEqualNode(node)) return;
  if (!isSame(old, node)) {
    old.replaceWith(node);
    return;
  }
  if (!old.attributes) {
    // It is a text or a comment.
    old.data = node.data;
    return;
  }
  for (const { name } of [...old.attributes]) {
    if (!node.hasAttribute(name)) old.removeAttribute(name);
  }
  for (const { name, value } of node.attributes) {
    if (old.getAttribute(name) !== value) old.setAttribute(name, value);
  }
  updateChildren(old, node);
}

/**
 * @param {Element} target
 * @param {Element | DocumentFragment} wanted
 * @returns {void}
 */
function updateChildren(target, wanted) {
  for (const child of [...target.children]) {
    if (child.id && !childWithId(wanted, child.id)) child.remove();
  }
  /** The first child that has not been handled yet. */
  let current = target.firstChild;
  for (const node of /** @type {any[]} */ ([...wanted.childNodes])) {
    const old = node.id ? childWithId(target, node.id) : current;
    if (!isSame(old, node)) {
      target.insertBefore(node, current);
      continue;
    }
    if (old === current) current = current.nextSibling;
    else target.insertBefore(old, current);
    update(old, node);
  }
  while (current) {
    const next = current.nextSibling;
    current.remove();
    current = next;
  }
}

/**
 * @param {Element | DocumentFragment} parent
 * @param {string} id
 * @returns {Element | undefined}
 */
function childWithId(parent, id) {
  return [...parent.children].find((child) => id && child.id === id);
}

/**
 * Whether `old` is updated to become `node`, not replaced. Lists of different rooms are different elements.
 * @param {any} old
 * @param {any} node
 * @returns {boolean}
 */
function isSame(old, node) {
  return old?.nodeName === node.nodeName && old.id === node.id && old.dataset?.room === node.dataset?.room;
}

/**
 * Sends the action in a control's `data-action`.
 * @param {HTMLElement} control
 * @returns {void}
 */
function act(control) {
  clearTimeout(debounceTimer);
  const { action, payload = "{}" } = control.dataset;
  const data = JSON.parse(payload);
  if (control instanceof HTMLFormElement) Object.assign(data, Object.fromEntries(new FormData(control)));
  if (!hooks.action?.(action, data, control)) send(action, data);
}

on("submit", (event) => {
  if (!event.target.dataset.action) return;
  event.preventDefault();
  act(event.target);
});

on("click", ({ target, detail }) => {
  const control = target.closest("[data-action]:not(form)");
  // A double click counts once.
  if (control && detail < 2) act(control);
});

on("input", ({ target: { form } }) => {
  clearTimeout(debounceTimer);
  if (form?.dataset.debounce) debounceTimer = setTimeout(act, form.dataset.debounce, form);
});

on("visibilitychange", wake);
on("online", wake, window);
on("offline", ping, window);

on("pageshow", ({ persisted }) => {
  if (!persisted) return;
  // A page restored from the back/forward cache has a dead socket.
  disconnect();
  connect();
}, window);

// By this event, the page's scripts have added their hooks.
on("DOMContentLoaded", tick);
