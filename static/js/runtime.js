/** One socket, no chat: actions out, fragments in. */

export const root = document.documentElement;

let socket = null, heard = 0, asked = 0, patience = 5000, since = 0, tries = 0, retryAt = 0, barred = 0, typing = 0;

/** What a page adds. */
export const hooks = {};

export const on = (name, hear, target = document) => target.addEventListener(name, hear);

function connect() {
  if (socket || Date.now() < barred) return;
  const query = {}, protocols = ["overwire.v1"];
  hooks.opening?.(query, protocols);
  socket = new WebSocket(`${document.body.dataset.socket}?${new URLSearchParams(query)}`, protocols);
  asked = since = Date.now();
  heard = 0;
  socket.onopen = () => (root.dataset.connected = true);
  socket.onmessage = ({ data }) => {
    heard = Date.now();
    asked = 0;
    tries = Math.min(tries, 1);
    patience = 5000;
    receive(data);
  };
  socket.onclose = ({ code }) => lose(code);
}

function lose(code) {
  if (!socket) return;
  socket.onopen = socket.onmessage = socket.onclose = null;
  socket.close();
  socket = null;
  root.dataset.connected = false;
  const now = Date.now();
  tries = now - since < 10_000 ? tries + 1 : 0;
  retryAt = now + Math.random() * Math.min(30_000, 1000 * 2 ** tries);
  if (code === 1008) retryAt = barred = now + 30_000 * (1 + Math.random());
  hooks.closed?.();
}

export function send(action, data = {}) {
  if (socket?.readyState !== 1) return false;
  socket.send(JSON.stringify({ action, data }));
  return true;
}

function ping() {
  if (send("Ping")) asked = Date.now();
}

function wake() {
  if (document.hidden) return;
  connect();
  ping();
}

function tick() {
  const now = Date.now();
  if (!socket) {
    if (now >= retryAt) connect();
  } else if (asked && now - asked >= patience) {
    if (!heard) patience = Math.min(60_000, patience * 2);
    lose();
  } else if (!asked && now - heard >= 20_000) ping();
  hooks.tick?.();
  setTimeout(tick, socket ? 1000 : 250);
}

function receive(text) {
  try {
    const push = JSON.parse(text), template = document.createElement("template");
    template.innerHTML = push.html;
    push.fragment = template.content;
    hooks.before?.(push);
    place(push);
    if (push.version != null) document.querySelector("#messages-list").dataset.version = push.version;
    hooks.after?.(push);
  } catch (error) {
    console.warn(error);
  }
}

function place({ selector, swap = "inner", fragment }) {
  const focus = document.activeElement;
  for (const target of document.querySelectorAll(selector)) swaps[swap](target, document.importNode(fragment, true));
  if (focus !== document.activeElement) focus.focus({ preventScroll: true });
}

const swaps = {
  inner: fill,
  append: add,
  prepend: (target, fragment) => add(target, fragment, target.firstChild),
  outer: (target, fragment) => become(target, fragment.firstElementChild ?? fragment),
  remove: (target) => target.remove(),
};

const find = (parent, id) => [...parent.children].find((child) => id && child.id === id);

function add(target, fragment, next = null) {
  for (const node of [...fragment.children]) {
    const old = find(target, node.id);
    if (old) become(old, node);
    else target.insertBefore(node, next);
  }
}

// Another room's list is another thing.
const same = (a, b) => a?.nodeName === b.nodeName && a.id === b.id && a.dataset?.room === b.dataset?.room;

/** Redraws, keeping what did not change. */
function become(old, node) {
  if (old.isEqualNode(node)) return;
  if (!same(old, node)) return old.replaceWith(node);
  if (!old.attributes) return void (old.data = node.data);
  for (const { name } of [...old.attributes]) if (!node.hasAttribute(name)) old.removeAttribute(name);
  for (const { name, value } of node.attributes) if (old.getAttribute(name) !== value) old.setAttribute(name, value);
  fill(old, node);
}

function fill(target, fragment) {
  for (const child of [...target.children]) if (child.id && !find(fragment, child.id)) child.remove();
  let at = target.firstChild;
  for (const node of [...fragment.childNodes]) {
    const old = node.id ? find(target, node.id) : at;
    if (!same(old, node)) target.insertBefore(node, at);
    else {
      if (old === at) at = at.nextSibling;
      else target.insertBefore(old, at);
      become(old, node);
    }
  }
  while (at?.nextSibling) at.nextSibling.remove();
  at?.remove();
}

function act(control) {
  clearTimeout(typing);
  const { action, payload = "{}" } = control.dataset;
  const data = JSON.parse(payload);
  if (control.matches("form")) Object.assign(data, Object.fromEntries(new FormData(control)));
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
  clearTimeout(typing);
  if (form?.dataset.debounce) typing = setTimeout(act, form.dataset.debounce, form);
});
on("visibilitychange", wake);
on("online", wake, window);
on("offline", ping, window);
on("pageshow", ({ persisted }) => persisted && (lose(), connect()), window);
on("DOMContentLoaded", tick);
