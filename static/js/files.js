/** Files that I attach to a message: by button, drop or paste. They are uploaded before it is sent. */

import { find, messageBox, roomId } from "./page.js";
import { on } from "./runtime.js";
import { recall, remember } from "./session.js";

const MOST = 10;

/** The server refuses a file for what it is: too large, of the wrong type, empty. */
const FINAL = [413, 415, 422];

/** The server did not answer. The file is sent again when the tab has connected. */
const LOST = "The connection was lost.";

/**
 * A file on the server.
 * @typedef {object} Stored
 * @property {string} id
 * @property {string} name
 * @property {string} url
 * @property {string} [preview] the address of a picture that shows it
 */

/**
 * @typedef {object} Upload
 * @property {string} name
 * @property {string} [room] the room it is meant for
 * @property {File} [file] missing for one that came back, with a refused message or after a reload
 * @property {Stored} [stored] once it is on the server
 * @property {boolean} [gone] whether it did not come back after a reload
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
 * @returns {Stored[] | null} null if it cannot be posted yet
 */
export function takeFiles(post) {
  const mine = here().filter(({ gone }) => !gone);
  sendLater = undefined;
  if (mine.some(({ stored }) => !stored)) {
    if (!mine.some(({ error }) => error && error !== LOST)) sendLater = { post, room: roomId(), text: messageBox.value };
    showUploads();
    return null;
  }
  here().forEach(remove);
  return mine.map(({ stored }) => stored);
}

/**
 * Attaches the files of a message again that was not sent.
 * @param {Stored[]} [files]
 * @param {string} [room]
 * @returns {void}
 */
export function giveBack(files = [], room = roomId()) {
  for (const stored of files) add({ name: stored.name, stored, room, node: blank() });
}

/**
 * I am somebody else now, who has to upload the files again.
 * @returns {void}
 */
export function renewFiles() {
  sendLater = undefined;
  for (const one of uploads) {
    if (one.file && (one.stored || one.request)) {
      one.request?.abort();
      one.stored = undefined;
      upload(one);
    } else if (one.stored) lose(one);
  }
  showUploads();
}

/**
 * The tab has connected.
 * @returns {void}
 */
export function retryLost() {
  for (const one of uploads) if (one.error === LOST) upload(one);
}

/**
 * @param {Upload} one
 * @returns {void}
 */
function lose(one) {
  one.gone = true;
  one.error = "Not available any more. Please attach it again.";
}

/** Shows the uploads of the room on show, and saves those of all rooms. */
export function showUploads() {
  const kept = uploads.filter(({ error }) => !error);
  remember("files", kept.map(({ name, room, stored }) => ({ name, room, stored })));
  for (const { node, room, name, stored, gone, error = "" } of uploads) {
    node.hidden = room !== roomId();
    node.dataset.state = gone ? "gone" : stored ? "done" : error ? "failed" : "sending";
    const picture = node.querySelector("img");
    picture.hidden = gone || !stored?.preview;
    if (!picture.hidden) picture.src ||= stored.preview;
    node.querySelector(".upload__name").textContent = name;
    node.querySelector(".upload__error").textContent = error;
    node.querySelector("progress").setAttribute("aria-label", name);
    node.querySelector("[data-upload=remove]").setAttribute("aria-label", `Remove ${name}`);
  }
  messageBox.form.toggleAttribute("data-sending", sendLater?.room === roomId() && here().some(({ stored }) => !stored));
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
 * @param {Upload} one
 * @returns {void}
 */
function remove(one) {
  one.node.remove();
  uploads = uploads.filter((other) => other !== one);
  showUploads();
}

/**
 * Attaches a file again after a reload, if the server still has it. It had none that was under way.
 * @param {Upload} one
 * @returns {Promise<void>}
 */
async function restore(one) {
  add(one);
  const asked = one.stored && fetch(one.stored.url, { method: "HEAD", cache: "no-store" });
  // Without an answer, sending it tells.
  if (!asked || await asked.then(({ status }) => status === 404, () => false)) lose(one);
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
  const { file, name, room, node } = one;
  const done = (error) => {
    one.request = undefined;
    one.error = error;
    if (error && error !== LOST) sendLater = undefined;
    showUploads();
    if (sendLater?.room !== roomId() || !here().every(({ stored }) => stored)) return;
    const { post, text } = sendLater;
    sendLater = undefined;
    if (messageBox.value === text) post();
  };
  if (here().indexOf(one) >= MOST) {
    done(`A message can have at most ${MOST} files.`);
    return;
  }
  if (file.size > limit) {
    node.dataset.final = "";
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
    node.querySelector("progress").value = loaded / total;
  };
  request.onload = () => {
    const { error = "The server did not take the file.", ...stored } = request.response ?? {};
    if (stored.id) one.stored = stored;
    node.toggleAttribute("data-final", FINAL.includes(request.status));
    done(stored.id ? undefined : error);
  };
  request.onerror = () => done(LOST);
  request.send(file);
  showUploads();
}

if (list) {
  for (const one of recall("files") ?? []) void restore({ ...one, node: blank() });

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
      sendLater = undefined;
      remove(one);
      messageBox.focus();
    }
  }, list);

  on("paste", (event) => {
    const { files } = event.clipboardData;
    const text = event.clipboardData.getData("text/plain").trim();
    // With cells of a spreadsheet comes a picture of them. With a file from a folder comes its name.
    if (!files.length || (text && !text.includes(files[0].name))) return;
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
