/** Files that I attach to a message: by button, drop or paste. They are uploaded at once, and the message is sent when they are there. */

import { find, messageBox, roomAt, roomId } from "./page.js";
import { on } from "./runtime.js";
import { destination, place, present, recall, remember, roomNamed } from "./session.js";

const MOST_FILES = 10;

/** The server refuses a file for what it is: too large, of the wrong type, empty. */
const FINAL = [413, 415, 422];

const LOST = "The connection was lost.";

/** A file that could not be taken is sent again after this time, and each time after as much more. Milliseconds. */
const RETRY_AFTER = 5000;

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
 * @property {string} [room] the id of the room that it is meant for, once known
 * @property {string} to the address of that room
 * @property {string} [message] the key of the message that waits for it; without one, it is in the composer
 * @property {File} [file] missing for one that came back, with a refused message or after a reload
 * @property {Stored} [stored] once it is on the server
 * @property {boolean} [gone] whether it did not come back after a reload
 * @property {string} [error]
 * @property {number} [again] when it is sent again, if the server could not take it: the connection was lost, or it was busy
 * @property {number} [tries] how often that has happened
 * @property {XMLHttpRequest} [request] while it is under way
 * @property {HTMLElement} node
 */

/** @type {Upload[]} */
let uploads = [];

/**
 * What to call when all files of a message are on the server, or one of them was refused.
 * @type {(message: string, refusal?: string) => void}
 */
let settled;

const uploadList = find("#uploads");
const picker = /** @type {HTMLInputElement} */ (find("#attach-files"));
const template = /** @type {HTMLTemplateElement} */ (find("#upload"));
const dropZone = find("#drop");
const limit = Number(picker?.dataset.limit);

/**
 * @param {Upload} one
 * @returns {boolean} whether it is in the composer, which is for the room that I am in or about to enter
 */
function isHere({ room, to, message }) {
  return !message && (to === place() || !destination && room !== undefined && room === roomId());
}

/** @returns {Upload[]} */
function here() {
  return uploads.filter(isHere);
}

/**
 * @param {string} message a key
 * @returns {Upload[]} the uploads of that message
 */
function of(message) {
  return uploads.filter((one) => one.message === message);
}

/**
 * @returns {number | null} how many files would be sent with a message; null if one was refused, so that it cannot be sent
 */
export function filesToSend() {
  const mine = here().filter(({ gone }) => !gone);
  return mine.some(isRefused) ? null : mine.length;
}

/**
 * @param {Upload} one
 * @returns {boolean}
 */
function isRefused({ error, again }) {
  return Boolean(error && !again);
}

/**
 * Shows which file keeps the message from being sent.
 * @returns {void}
 */
export function focusRefused() {
  const button = /** @type {HTMLElement} */ (here().find(isRefused).node.querySelector("[data-upload=remove]"));
  button.focus();
}

/**
 * The files in the composer go with a message. It goes without those that are gone.
 * @param {string} message its key
 * @param {(message: string, refusal?: string) => void} call is called when all of them are on the server, or one was refused
 * @returns {void}
 */
export function sendFiles(message, call) {
  settled = call;
  for (const one of here()) {
    if (one.gone) remove(one);
    else one.message = message;
  }
  showUploads();
  if (!isUploading(message)) call(message);
}

/**
 * @param {string} message a key
 * @returns {boolean} whether the message waits for one of its files
 */
export function isUploading(message) {
  return of(message).some(({ stored }) => !stored);
}

/**
 * The page has been loaded again.
 * @param {string[]} messages the keys of those that are not settled. The files of others are in the composer again
 * @returns {void}
 */
export function keepFiles(messages) {
  for (const one of uploads) if (!messages.includes(one.message)) one.message = undefined;
}

/**
 * @param {string} message a key
 * @returns {Stored[]} its files, which the page no longer shows
 */
export function takeFiles(message) {
  const mine = of(message);
  mine.forEach(remove);
  return mine.map(({ stored }) => stored);
}

/**
 * Attaches the files of a message again that was not sent.
 * @param {string} message its key
 * @param {Stored[] | undefined} files
 * @param {{ room?: string, to: string }} place
 * @returns {void}
 */
export function giveBack(message, files = [], { room, to }) {
  for (const one of of(message)) one.message = undefined;
  for (const stored of files) addUpload({ name: stored.name, stored, room, to, node: blankUpload() });
  showUploads();
}

/**
 * I am somebody else now, who has to upload the files again.
 * @returns {void}
 */
export function renewFiles() {
  for (const one of uploads) {
    if (one.file && (one.stored || one.request)) {
      one.stored = undefined;
      upload(one);
    } else if (one.stored) lose(one);
  }
  showUploads();
}

/**
 * Sends the files again that are due.
 * @param {number} [now] on a new socket, all of them are due
 * @returns {void}
 */
export function retryFiles(now = Date.now()) {
  if (present) for (const one of uploads) if (one.again <= now) upload(one);
}

/**
 * @param {Upload} one
 * @returns {void}
 */
function lose(one) {
  one.gone = true;
  one.error = "Not available any more. Please attach it again.";
  if (one.message) settled?.(one.message, one.error);
}

/** Shows the uploads of the room on show, those of a message with it, and saves those of all rooms. */
export function showUploads() {
  const kept = uploads.filter((one) => one.message || !isRefused(one));
  remember("files", kept.map(({ name, room, to, message, stored }) => ({ name, room, to, message, stored })));
  for (const one of uploads) {
    const { node, message, name, stored, gone, error = "" } = one;
    const parent = message ? document.getElementById(message)?.querySelector(".uploads") : uploadList;
    if (parent && node.parentNode !== parent) parent.append(node);
    node.hidden = !message && !isHere(one);
    node.dataset.state = gone ? "gone" : stored ? "done" : error ? "failed" : "sending";
    const picture = node.querySelector("img");
    picture.hidden = gone || !stored?.preview;
    if (!picture.hidden) picture.src ||= stored.preview;
    node.querySelector(".upload__name").textContent = name;
    node.querySelector(".upload__error").textContent = error;
    node.querySelector("progress").setAttribute("aria-label", name);
    node.querySelector("[data-upload=remove]").setAttribute("aria-label", `Remove ${name}`);
  }
}

/** @returns {HTMLElement} */
function blankUpload() {
  return /** @type {HTMLElement} */ (template.content.firstElementChild.cloneNode(true));
}

/**
 * @param {Upload} one
 * @returns {void}
 */
function addUpload(one) {
  uploads.push(one);
  showUploads();
}

/**
 * @param {Upload} one
 * @returns {void}
 */
function remove(one) {
  one.request?.abort();
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
  addUpload(one);
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
  if (messageBox.disabled || !roomNamed(place())) return;
  // One too many is shown, and says why no more were attached.
  for (const file of [...(files ?? [])].slice(0, Math.max(0, MOST_FILES + 1 - here().length))) {
    const one = { name: file.name, file, to: place(), node: blankUpload() };
    addUpload(one);
    upload(one);
  }
  messageBox.focus();
}

/**
 * @param {Upload} one
 * @returns {void}
 */
function upload(one) {
  const { file, name, to, node } = one;
  one.request?.abort();
  const done = (error, again) => {
    one.request = undefined;
    one.error = error;
    one.again = again;
    showUploads();
    if (!one.message || again) return;
    if (error || !isUploading(one.message)) settled(one.message, error);
  };
  const fail = (error) => {
    one.tries = (one.tries ?? 0) + 1;
    done(error, Date.now() + one.tries * RETRY_AFTER);
  };
  if (here().indexOf(one) >= MOST_FILES) {
    done(`A message can have at most ${MOST_FILES} files.`);
    return;
  }
  if (file.size > limit) {
    node.dataset.final = "";
    done(`The file is too large. The limit is ${Math.floor(limit / 2 ** 20)} MiB.`);
    return;
  }
  one.room ??= roomAt(to);
  const { groupName, isGroup } = roomNamed(to) ?? {};
  if (!one.room && !isGroup) {
    // Only a group takes files by its name. A private room gets them when I am in it.
    done(LOST, Date.now());
    return;
  }
  const where = one.room ? { room: one.room } : { group: groupName };
  const request = new XMLHttpRequest();
  one.error = undefined;
  one.again = undefined;
  one.request = request;
  request.open("POST", `/files/?${new URLSearchParams({ ...where, name })}`);
  const token = recall("resume");
  if (token) request.setRequestHeader("Authorization", `Bearer ${token}`);
  request.responseType = "json";
  request.upload.onprogress = ({ loaded, total }) => {
    node.querySelector("progress").value = loaded / total;
  };
  request.onload = () => {
    const { status, response } = request;
    const { error = "The server did not take the file.", ...stored } = response ?? {};
    node.toggleAttribute("data-final", FINAL.includes(status));
    if (status === 429 || status >= 500) {
      fail(error);
      return;
    }
    if (stored.id) one.stored = stored;
    done(stored.id ? undefined : error);
  };
  request.onerror = () => fail(LOST);
  request.send(file);
  showUploads();
}

if (uploadList) {
  for (const one of recall("files") ?? []) void restore({ ...one, node: blankUpload() });

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
      remove(one);
      messageBox.focus();
    }
  });

  on("beforeunload", (event) => {
    // What is under way would be lost.
    if (uploads.some((one) => one.file && !one.stored && !isRefused(one))) event.preventDefault();
  }, window);

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
