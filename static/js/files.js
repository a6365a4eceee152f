/** Files that I attach to a message: by button, drop or paste. They are uploaded before it is sent. */

import { find, findAll, messageBox, roomId } from "./page.js";
import { on } from "./runtime.js";
import { recall } from "./session.js";

const MOST = 10;

/**
 * @typedef {object} Upload
 * @property {string} name
 * @property {string} [room] the room it is meant for
 * @property {File} [file] missing for one that came back with a refused message
 * @property {string} [id] its id on the server, once it is there
 * @property {string} [error]
 * @property {XMLHttpRequest} [request] while it is under way
 * @property {HTMLElement} node
 */

/** @type {Upload[]} */
let uploads = [];

/**
 * The message that the person has sent while its files were still under way. It is posted when the last of them is
 * done, unless its text has changed since.
 * @type {{ post: () => void, room: string, text: string } | undefined}
 */
let sendLater;

const list = find("#uploads");
const picker = /** @type {HTMLInputElement} */ (find("#attach-files"));
const template = /** @type {HTMLTemplateElement} */ (find("#upload"));
const dropZone = find("#drop");
const limit = Number(picker?.dataset.limit);

/** @returns {Upload[]} the uploads for the room on show */
function here() {
  return uploads.filter(({ room }) => room === roomId());
}

/**
 * The files of a message that is about to be posted, which the composer then no longer has.
 * @param {() => void} post posts it later, if they are still under way
 * @returns {{ id: string, name: string }[] | null} null if it cannot be posted yet
 */
export function takeFiles(post) {
  const mine = here();
  sendLater = undefined;
  if (mine.some(({ id }) => !id)) {
    if (!mine.some(({ error }) => error)) sendLater = { post, room: roomId(), text: messageBox.value };
    showUploads();
    return null;
  }
  for (const { node } of mine) node.remove();
  uploads = uploads.filter((one) => !mine.includes(one));
  return mine.map(({ id, name }) => ({ id, name }));
}

/**
 * Attaches the files of a message again that was not sent.
 * @param {{ id: string, name: string }[]} [files]
 * @param {string} [room]
 * @returns {void}
 */
export function giveBack(files = [], room = roomId()) {
  for (const { id, name } of files) add({ id, name, room, node: blank() });
}

/**
 * @param {File} [file]
 * @returns {boolean} whether it can never be uploaded
 */
function isTooLarge(file) {
  return file?.size > limit;
}

/** Shows the uploads of the room on show. */
export function showUploads() {
  for (const { node, room, name, file, id, error = "" } of uploads) {
    node.hidden = room !== roomId();
    node.toggleAttribute("data-final", isTooLarge(file));
    node.dataset.state = id ? "done" : error ? "failed" : "sending";
    node.querySelector(".upload__name").textContent = name;
    node.querySelector(".upload__error").textContent = error;
    node.querySelector("progress").setAttribute("aria-label", name);
    node.querySelector("[data-upload=remove]").setAttribute("aria-label", `Remove ${name}`);
  }
  messageBox.form.toggleAttribute("data-sending", sendLater?.room === roomId() && here().some(({ id }) => !id));
}

/** @returns {HTMLElement} */
function blank() {
  return /** @type {HTMLElement} */ (template.content.firstElementChild.cloneNode(true));
}

/**
 * @param {Upload} one
 * @returns {void}
 */
function add(one) {
  uploads.push(one);
  list.append(one.node);
  showUploads();
}

/**
 * @param {Iterable<File> | null} [files]
 * @returns {void}
 */
function attach(files) {
  if (!roomId() || messageBox.disabled) return;
  // One too many is shown, and says why no more were attached.
  for (const file of [...(files ?? [])].slice(0, Math.max(0, MOST + 1 - here().length))) {
    const one = { name: file.name, file, room: roomId(), node: blank() };
    add(one);
    upload(one);
  }
  messageBox.focus();
}

/**
 * @param {Upload} one
 * @returns {void}
 */
function upload(one) {
  const { file, name, room } = one;
  const done = (error) => {
    one.request = undefined;
    one.error = error;
    if (error) sendLater = undefined;
    showUploads();
    if (sendLater?.room !== roomId() || !here().every(({ id }) => id)) return;
    const { post, text } = sendLater;
    sendLater = undefined;
    if (messageBox.value === text) post();
  };
  if (here().indexOf(one) >= MOST) {
    done(`A message can have at most ${MOST} files.`);
    return;
  }
  if (isTooLarge(file)) {
    done(`The file is too large. The limit is ${Math.floor(limit / 2 ** 20)} MiB.`);
    return;
  }
  const request = new XMLHttpRequest();
  one.error = undefined;
  one.request = request;
  request.open("POST", `/files/?${new URLSearchParams({ room, name })}`);
  const token = recall("resume");
  if (token) request.setRequestHeader("Authorization", `Bearer ${token}`);
  request.responseType = "json";
  request.upload.onprogress = ({ loaded, total }) => {
    one.node.querySelector("progress").value = loaded / total;
  };
  request.onload = () => {
    const { id, error = "The server did not take the file." } = request.response ?? {};
    one.id = id;
    done(id ? undefined : error);
  };
  request.onerror = () => done("The connection was lost.");
  request.send(file);
  showUploads();
}

if (list) {
  on("click", () => picker.click(), find("#attach"));

  on("change", () => {
    attach(picker.files);
    // The same file can be chosen again.
    picker.value = "";
  }, picker);

  on("click", ({ target }) => {
    const one = uploads.find(({ node }) => node.contains(target));
    if (target.dataset.upload === "retry") upload(one);
    if (target.dataset.upload === "remove") {
      one.request?.abort();
      one.node.remove();
      uploads = uploads.filter((other) => other !== one);
      sendLater = undefined;
      showUploads();
      messageBox.focus();
    }
  }, list);

  on("paste", (event) => {
    const { files } = event.clipboardData;
    if (!files.length) return;
    event.preventDefault();
    attach(files);
  }, messageBox);

  on("dragover", (event) => {
    if (!event.dataTransfer.types.includes("Files")) return;
    event.preventDefault();
    dropZone.hidden = !roomId();
  });

  on("dragleave", ({ relatedTarget }) => {
    if (!relatedTarget) dropZone.hidden = true;
  });

  on("drop", (event) => {
    dropZone.hidden = true;
    const { files } = event.dataTransfer;
    if (!files.length) return;
    event.preventDefault();
    attach(files);
  });
}
