/** How the chat behaves. */

import { hooks, on, root, send } from "./runtime.js";

const $ = (selector) => document.querySelector(selector);
const byId = (id) => document.getElementById(id);
const all = (root, selector) => [...root.querySelectorAll(selector)];

function kept(name, value) {
  try {
    if (value !== undefined) sessionStorage[`overwire.${name}`] = JSON.stringify(value);
    return JSON.parse(sessionStorage[`overwire.${name}`]);
  } catch {}
}

const box = $("#message-text"), scroller = $("#scroller"), waiting = $("#waiting"), form = $("#message-form"), fresh = $("#new-messages"), quick = $("#quick"), names = $("#completions");
const list = () => $("#messages-list");
const room = () => list().dataset.room;
const heading = () => $("#group-name").textContent.trim();
const address = () => $("#group-name [data-address]")?.dataset.address;
const shut = () => $(":popover-open")?.hidePopover();
const hush = () => $("#notice").replaceChildren();

/** Where I am or want to be, and what I type is for. */
const place = () => want?.to ?? address() ?? location.pathname;

/** Who I am, said by this socket if I am `here`; the room `shown`. */
let me = kept("user") ?? "", here = false, shown;

hooks.opening = (query, protocols) => {
  const { room, version } = list().dataset, token = kept("resume");
  Object.assign(query, room && { room, after: version }, { at: location.pathname });
  if (token) protocols.push(`resume.${token}`);
};

hooks.closed = () => {
  here = false;
  asked = [];
  older = seen = "";
};

function arrive() {
  const { user, resume } = $("#logged-user [data-user]").dataset;
  me = kept("user", user);
  kept("resume", resume);
  here = true;
  flush(true);
  ask();
}

/** key, message, room, to, title, user, state */
let unsettled = kept("unsettled") ?? [];

function post() {
  const message = box.value.slice(0, box.maxLength);
  box.focus();
  if (!message.trim()) return;
  // As crypto.randomUUID, which is for https.
  const key = URL.createObjectURL(new Blob()).slice(-36);
  unsettled.push({ key, message, room: !want && room(), to: place(), title: want?.to ?? heading(), user: me });
  write("");
  flush();
  toEnd();
}

function flush(again) {
  const due = unsettled.filter((one) => here && one.room && !one.state && (again || !(Date.now() - one.sent < 5000)));
  for (const one of due.slice(0, again ? 99 : 9)) {
    const { key, message, room } = one;
    one.user ||= me;
    if (one.user !== me) one.state = one.sent ? "unsure" : "refused";
    else if (send("New message", { message, room, key })) one.sent = Date.now();
  }
  draw();
}

function settle(fragment, refused) {
  for (const { dataset } of all(fragment, "[data-key]:not([data-tone=wait])")) {
    const one = unsettled.find(({ key }) => key === dataset.key);
    if (!one) continue;
    if (refused && (box.value || one.to !== place())) {
      one.state = "refused";
      one.reason = fragment.querySelector(".notice__text").textContent;
      draw();
      continue;
    }
    drop(one);
    if (refused) write(one.message);
    else hush();
  }
}

function drop(one) {
  unsettled = unsettled.filter((other) => other !== one);
  byId(one.key).remove();
  draw();
}

function draw() {
  kept("unsettled", unsettled);
  root.dataset.pending = unsettled.filter(({ state }) => !state).length;
  for (const one of unsettled) {
    const { key, state = "waiting" } = one;
    const node = byId(key)
      ?? waiting.appendChild($("#waiting-message").content.firstElementChild.cloneNode(true));
    node.id = key;
    node.dataset.state = state;
    node.hidden = one.room && !one.state && one.to !== place();
    for (const slot of all(node, "[data-slot]")) slot.textContent = one[slot.dataset.slot];
  }
}

on("click", ({ target }) => {
  const { back } = target.dataset, one = unsettled.find(({ key }) => key === target.closest("[id]").id);
  if (!back) return;
  drop(one);
  if (back === "edit") write([box.value, one.message].filter(Boolean).join("\n"));
  box.focus();
}, waiting);

const draft = (text) => kept(`draft.${place()}`, text);
function write(text) {
  draft(box.value = text);
  const name = begun();
  if (name) send("Complete", { text: name });
}

/** The name being written; without one none is proposed. */
const begun = () =>
  box.value.slice(0, box.selectionStart).match(/(?:^\/pm |\B@)(\S*)$/)?.[1] || names.replaceChildren();

on("click", ({ target }) => {
  const at = box.selectionStart, [rest] = box.value.slice(at).match(/^\S*/);
  if (begun()) box.setRangeText(`${target.closest("button").value} `, at - begun().length, at + rest.length, "end");
  write(box.value);
  box.focus();
}, names);
on("selectionchange", begun);

on("input", () => {
  write(box.value);
  if (box.value[0] !== "/" && Date.now() - typedAt > 2500 && send("Typing", { room: room() })) typedAt = Date.now();
}, box);
on("keydown", (event) => {
  const { target, key } = event;
  if (event.isComposing || event.keyCode === 229) return;
  if (key === "Escape") {
    names.replaceChildren();
    form.querySelector("[data-dismiss]")?.click();
    rest();
  }
  if (key === "ArrowUp" && target === box && !box.value) all(list(), `[data-user="${me}"] .change`).at(-1)?.click();
  if (key !== "Enter" || event.shiftKey || !target.matches("textarea")) return;
  event.preventDefault();
  target.form.requestSubmit();
});

hooks.action = (action, data, control) => {
  if (control.closest("[data-room]")) data.room = room();
  if (action === "React") {
    data.on ??= control.ariaPressed !== "true";
    data.message ??= number(control.closest(".message"));
  } else if (action === "New message") return post(), true;
  else if (action === "Older messages") return askOlder(), true;
};

function open() {
  shown = room();
  older = "";
  shut();
  form.replaceChildren();
  box.disabled = $("#send").disabled = !shown;
  for (const one of unsettled) if (one.to === address()) one.room ||= shown;
  turn();
  flush();
  toEnd();
  rest();
}

/** The focus, if it is nowhere. */
function rest() {
  if (matchMedia("(hover: hover)").matches && document.activeElement.matches("body, .nav__link")) box.focus();
}

/** My newest wish. */
let want = null, asked = [], before = address();

function enter(to, back) {
  const [, person, name] = to.match(/^\/chat\/(@?)([^/]+)\/$/) ?? [];
  if (!name) return location.reload();
  if (to === place()) return;
  if (!want) asked = [];
  try {
    want = { to, back, data: { groupName: decodeURIComponent(name), isGroup: !person } };
  } catch {
    return go(true);
  }
  hush();
  ask();
  turn();
}

function turn() {
  write(draft() ?? "");
  draw();
  mark(document);
}

function ask() {
  if (want && here && send("Change group", want.data)) asked.push(want.to);
}

function headed() {
  const now = address(), moved = now !== before;
  before = now;
  // Renamed, with what I write.
  if (moved && !want && box.value && $(`#group-name [data-room="${shown}"]`)) kept(`draft.${now}`, box.value);
  if (want ? now !== want.to && !(moved && asked.length === 1) : asked.includes(now) && now !== asked.at(-1)) return;
  go(want?.back);
}

function go(back) {
  want = null;
  if (before && before !== location.pathname) history[back ? "replaceState" : "pushState"](null, "", before);
  turn();
}

on("mouseover", ({ target }) => {
  const message = target.closest(".message");
  if (message && message !== quick.parentNode) message.append(quick);
});

on("popstate", () => enter(location.pathname, true), window);

on("click", (event) => {
  const { target } = event, link = target.closest("a[data-group-name]"), { dismiss } = target.dataset;
  if (dismiss) {
    $(dismiss).replaceChildren();
    box.focus();
  }
  if (!link || event.button || event.metaKey || event.ctrlKey || event.shiftKey || event.altKey) return;
  event.preventDefault();
  enter(link.getAttribute("href"));
  shut();
  if (!link.closest("#users-found")) return;
  const { form } = $("#people-search");
  form.reset();
  form.requestSubmit();
});

function mark(root) {
  for (const link of all(root, "a[data-group-name]")) {
    link.ariaCurrent = link.getAttribute("href") === place() ? "page" : null;
  }
  for (const one of all(root, ".reactions .chip")) one.ariaPressed = !!byId(`my-${one.id}`);
  for (const one of all(root, ".message")) one.toggleAttribute("data-mine", one.dataset.user === me);
  // Nobody is listed twice.
  for (const one of all(root, "[id^=online]")) one.hidden = one.dataset.user === me || byId(`mine-${one.dataset.user}`);
}

function localise(root) {
  for (const time of all(root, "time")) {
    const date = new Date(time.dateTime);
    time.textContent = date.toLocaleTimeString([], { timeStyle: "short" });
    time.title = date.toLocaleDateString([], { dateStyle: "full" });
  }
}

const messages = () => all(list(), ".message");

function join() {
  let last = {};
  for (const node of messages()) {
    const [name, time] = all(node, "b, time"), user = name?.textContent;
    if (!time) {
      last.user = 0;
      continue;
    }
    const day = time.title, at = Date.parse(time.dateTime), same = day === last.day;
    node.dataset.day = same ? "" : day;
    node.toggleAttribute("data-joined", same && user === last.user && at - last.at < 300_000);
    last = { user, day, at };
  }
}

let following = true, older = "", seen = "", seenAt = 0, typedAt = 0, unsaid = {}, end, anchor, anchorTop, drawn, focused;

const top = (node) => node.getBoundingClientRect().top;
const number = (node) => +node.id.slice(8);
const span = () => scroller.scrollHeight - scroller.clientHeight;

function toEnd() {
  following = fresh.hidden = true;
  for (const one of older ? [] : messages().slice(0, -500)) {
    one.remove();
    $("#messages-older").dataset.more = true;
  }
  scroller.scrollTop = end = span();
}

function askOlder() {
  const first = $("#messages-older[data-more=true] ~ .message");
  if (!older && first && send("Older messages", { before: number(first), room: room() })) older = first.id;
}

/** Of a room left since, too. */
function read() {
  const last = messages().at(-1);
  if (last && list().dataset.reads && following && !document.hidden && last.id !== seen) {
    seen = last.id;
    unsaid[room()] = number(last);
  }
  for (const room in unsaid) {
    if (!here || Date.now() - seenAt < 2000) return;
    seenAt = Date.now();
    send("Read", { message: unsaid[room], room });
    delete unsaid[room];
  }
}

on("scroll", () => {
  if (following && span() !== end) toEnd();
  following = span() - scroller.scrollTop < 48;
  if (following) fresh.hidden = true;
  else if (scroller.scrollTop < 600) askOlder();
}, scroller);

new ResizeObserver(() => following && toEnd()).observe(scroller);

on("click", () => {
  toEnd();
  box.focus();
}, fresh);

hooks.before = ({ fragment, selector }) => {
  focused = document.activeElement;
  anchor = !following && messages().find((one) => top(one) >= top(scroller));
  anchorTop = anchor && top(anchor);
  localise(fragment);
  mark(fragment);
  drawn = fragment.querySelector(".message");
  const notice = selector === "#notice";
  settle(fragment, notice);
  if (!notice || fragment.querySelector("[data-key]")) return;
  older = "";
  shut();
  if (!want) return;
  for (const one of unsettled) if (!one.room) one.state = "refused";
  go(true);
};

hooks.after = ({ selector, swap }) => {
  if (selector === "#group-name") headed();
  if (selector === "#logged-user") arrive();
  if (selector === "#message-form") {
    const field = form.querySelector("textarea, button") ?? box;
    field.focus();
    field.selectionStart = field.textLength;
  }
  if (/user|my/.test(selector)) mark(document);
  const unread = all(document, "#users-mine [data-unread]").length;
  if (heading()) document.title = `${unread ? `(${unread}) ` : ""}${heading()} · Overwire`;
  if (room() !== shown) open();
  if (drawn) join();
  if (swap === "prepend") older = "";
  if (following) toEnd();
  else if (swap === "append" && drawn) fresh.hidden = false;
  if (anchor?.isConnected) scroller.scrollTop += top(anchor) - anchorTop;
  if (!span()) askOlder();
  if (!quick.isConnected) $(".message:hover")?.append(quick);
  if (focused !== document.activeElement) rest();
  begun();
  read();
};

hooks.tick = () => {
  if (unsettled.length) flush();
  read();
};

localise(document);
join();
open();
