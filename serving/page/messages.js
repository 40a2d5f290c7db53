// The message above the page: what the reader should know, or what went wrong.

import { $, h } from "./dom.js";
import { Problem } from "./server.js";

/**
 * Show a message, with a button that tries again if there is something to try; "" takes the message away. Return its
 * element, which is connected as long as the message is shown.
 */
export function say(text, retry = null) {
  const box = $("message");
  const hadFocus = box.contains(document.activeElement);
  const line = h("span", {}, text);
  box.hidden = !text;
  box.replaceChildren(...(text ? [line] : []));
  if (text && retry) {
    const button = h("button", { type: "button" }, "Try again");
    button.addEventListener("click", retry);
    box.append(button);
  }
  if (hadFocus) (box.querySelector("button") ?? $("answer-title")).focus();
  return line;
}

let attempts = 0; // counts what the reader has begun: only the last has a message

/** Run work for the reader; show the message that it returns or what went wrong, unless more was begun meanwhile. */
export async function attempt(work) {
  const number = ++attempts;
  const end = (message, retry = null) => {
    if (number !== attempts) return;
    document.body.classList.remove("busy");
    say(message, retry);
  };
  document.body.classList.add("busy");
  try {
    end(await work());
  } catch (error) {
    end(error instanceof Problem ? error.message : "", () => attempt(work));
    if (!(error instanceof Problem)) throw error;
  }
}
