// Asks the server, with the reader's key, and explains its errors.

import { decode } from "./answer.js";
import { $ } from "./dom.js";

const GONE = "The server does not answer. It may have been stopped, or the connection is lost.";

let key = ""; // in memory only

/** An error with a message for the reader, and the server's code if it has one. */
export class Problem extends Error {
  constructor(message, code = null) {
    super(message);
    this.code = code;
  }
}

/** Return the JSON that the server answers; ask for a key where it wants one. */
export async function ask(path, options = {}) {
  const sent = key;
  const headers = sent ? { Authorization: `Bearer ${sent}` } : {};
  let response;
  try {
    response = await fetch(path, { ...options, headers, cache: "no-store" });
    if (response.ok) return await response.json();
  } catch {
    throw new Problem(GONE);
  }
  const error = (await response.json().catch(() => null))?.error;
  // Another request may have got a new key meanwhile.
  if (response.status === 401 && (sent !== key || (await askForKey(sent !== "")))) return ask(path, options);
  throw new Problem(explain(response.status, error, sent !== ""), error?.code);
}

function explain(status, error, hasKey) {
  const detail = error?.message ? error.message.charAt(0).toUpperCase() + error.message.slice(1) : "";
  switch (error?.code) {
    case "unauthorized":
      return hasKey ? "The server refused this key." : "This server asks for an API key.";
    case "overloaded":
      return "The server is busy. Try again in a moment.";
    case "not_ready":
      return "The server is about to stop, or has no model loaded. Try again later.";
    case "deadline_exceeded":
      return "The server ran out of time. Try again, or take a smaller picture.";
    case "body_too_large":
      return `The file is too large: ${error.message}.`;
    case "image_too_large":
    case "image_too_costly":
      return `The picture is too large: ${error.message}.`;
    case "invalid_image":
      return `This file cannot be read as a picture: ${error.message}.`;
    case "inference_failed":
    case "internal_error":
      return "The server failed on this picture. Its log says why.";
    default:
      return detail ? `${detail}.` : `The server answered with status ${status}.`;
  }
}

let asked = null; // the answer to the open dialog: two requests may ask at the same time

/** Ask for a key, the first or another one for one that was refused; return whether the reader gave one. */
export function askForKey(isRefused = false) {
  asked ??= openKeyDialog(isRefused).finally(() => (asked = null));
  return asked;
}

function openKeyDialog(isRefused) {
  const dialog = $("key-dialog");
  $("key").value = "";
  dialog.returnValue = "";
  dialog.showModal();
  $("key-refused").hidden = !isRefused;
  return new Promise((resolve) => {
    dialog.addEventListener(
      "close",
      () => {
        const isGiven = dialog.returnValue === "use" && $("key").value !== "";
        if (isGiven) key = $("key").value.trim();
        $("key").value = "";
        resolve(isGiven);
      },
      { once: true },
    );
  });
}

/** Return the decoded answer of /inspect to a picture. */
export function inspect(blob, name, parameters) {
  const form = new FormData();
  form.append("file", blob, name);
  return ask(`inspect?${new URLSearchParams(parameters)}`, { method: "POST", body: form }).then(decode);
}

/** Return a file of the page as a Blob. */
export async function load(path) {
  const response = await fetch(path).catch(() => null);
  if (!response?.ok) throw new Problem(GONE);
  return response.blob();
}
