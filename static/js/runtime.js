/** One socket, no chat: actions go out, fragments come in and are put in place. */

/**
 * What the server sends: HTML and where it goes.
 * @typedef {object} Push
 * @property {string} selector
 * @property {string} html
 * @property {keyof typeof swaps} [swap] how it gets there; `inner` unless said
 * @property {number} [version] what the page has seen once this is in place
 * @property {DocumentFragment} fragment the HTML, parsed here
 */

/**
 * What a page adds.
 * @typedef {object} Hooks
 * @property {(query: Record<string, string>, protocols: string[]) => void} [opening]
 *   fills in what a new socket is opened with
 * @property {() => void} [closed] the socket is gone
 * @property {() => void} [tick] comes every second, four times as often without a socket
 * @property {(action: string, data: Record<string, any>, control: HTMLElement) => boolean} [action]
 *   may change the data; true if nothing is to be sent
 * @property {(push: Push) => void} [before] may change the fragment
 * @property {(push: Push) => void} [after] the fragment is in place
 */

/** @type {Hooks} */
export const hooks = {};

/** Bears what styles and tests look at, such as `data-connected`. */
export const root = document.documentElement;

const SHORTEST_PATIENCE = 5000;
const LONGEST_PATIENCE = 60_000;
const LONGEST_SILENCE = 20_000;
const LONGEST_RETRY = 30_000;
const SHORT_LIFE = 10_000;
const CLOSED_BY_POLICY = 1008;
const { OPEN } = WebSocket;

/** @type {WebSocket | null} */
let socket = null;
let openedAt = 0;
/** When the socket last said something; 0 before it ever did. */
let heardAt = 0;
/** When it was asked for something that has not come; 0 if nothing is owed. */
let askedAt = 0;
/** How long an answer may take. */
let patience = SHORTEST_PATIENCE;
/** How many sockets in a row did not last. */
let failures = 0;
let retryAt = 0;
/** Nothing opens a socket before. */
let barredUntil = 0;
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
  if (socket || Date.now() < barredUntil) return;
  /** @type {Record<string, string>} */
  const query = {};
  const protocols = ["overwire.v1"];
  hooks.opening?.(query, protocols);
  socket = new WebSocket(`${document.body.dataset.socket}?${new URLSearchParams(query)}`, protocols);
  openedAt = Date.now();
  askedAt = openedAt;
  heardAt = 0;
  socket.onopen = () => {
    root.dataset.connected = "true";
  };
  socket.onmessage = ({ data }) => {
    heardAt = Date.now();
    askedAt = 0;
    failures = Math.min(failures, 1);
    patience = SHORTEST_PATIENCE;
    receive(data);
  };
  socket.onclose = ({ code }) => disconnect(code);
}

/**
 * @param {number} [code] why the server closed the socket, if it was the server
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
  // At random, so that the tabs of a server that restarts do not all come at once.
  retryAt = now + Math.random() * Math.min(LONGEST_RETRY, 1000 * 2 ** failures);
  if (code === CLOSED_BY_POLICY) {
    barredUntil = now + LONGEST_RETRY * (1 + Math.random());
    retryAt = barredUntil;
  }
  hooks.closed?.();
}

/** @returns {void} */
function ping() {
  if (send("Ping")) askedAt = Date.now();
}

/**
 * The tab is looked at or the network is back: the socket may be gone without having said so.
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
  } else if (now - heardAt >= LONGEST_SILENCE) {
    ping();
  }
  hooks.tick?.();
  setTimeout(tick, socket ? 1000 : 250);
}

/** @returns {void} */
function giveUp() {
  // A line on which nothing ever came may just be slow.
  if (!heardAt) patience = Math.min(LONGEST_PATIENCE, patience * 2);
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
    // One push that fails must not cost those that follow.
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
  // An element that is moved loses the focus.
  if (focused !== document.activeElement) focused.focus({ preventScroll: true });
}

/** @satisfies {Record<string, (target: Element, fragment: DocumentFragment) => void>} */
const swaps = {
  inner: updateChildren,
  append: insert,
  prepend: (target, fragment) => insert(target, fragment, target.firstChild),
  outer: (target, fragment) => update(target, fragment.firstElementChild ?? fragment),
  remove: (target) => target.remove(),
};

/**
 * Puts in what is new; what is there already is updated where it stands.
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
 * Makes `old` what `node` is. What does not change stays the node it was, with its focus and selection.
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
    // A text or a comment.
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
  /** The first child that has not been dealt with. */
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
 * Whether one becomes the other by changing what differs. Another room's list is another thing.
 * @param {any} old
 * @param {any} node
 * @returns {boolean}
 */
function isSame(old, node) {
  return old?.nodeName === node.nodeName && old.id === node.id && old.dataset?.room === node.dataset?.room;
}

/**
 * Does what a control says in `data-action`.
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
  // Once of a double click.
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
  // A page that comes back by the browser's memory has a socket that has been dead since.
  disconnect();
  connect();
}, window);

// By then, the scripts of the page have added their hooks.
on("DOMContentLoaded", tick);
