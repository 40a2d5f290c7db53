// The models that the server has, and the menus in which the reader chooses one or two of them.

import { $, h } from "./dom.js";
import { ask } from "./server.js";

let models = []; // as the server describes them, the first of each name

/** Ask which models are served. What is chosen stays chosen; if it is gone, the default takes its place. */
export async function listModels() {
  const listed = await ask("models");
  const [former, other] = [$("model").value, $("other").value];
  models = [...new Map(listed.models.toReversed().map((entry) => [entry.name, entry])).values()].toReversed();
  const option = ({ name }) => h("option", { value: name }, name);
  $("model").replaceChildren(...models.map(option));
  $("other").replaceChildren(h("option", { value: "" }, "no other"), ...models.map(option));
  if (listed.default) chooseModels(isServed(former) ? former : listed.default, other);
}

export const hasModels = () => models.length > 0;
export const modelNamed = (name) => models.find((entry) => entry.name === name);
export const isServed = (name) => modelNamed(name) !== undefined;

/** Return the names of the model that is chosen and, if there is one, of the other that it is compared with. */
export const chosenNames = () => [$("model").value, $("other").value].filter(Boolean);

/** Choose a model and another one; what is not served is not chosen. */
export function chooseModels(name, other) {
  if (isServed(name)) $("model").value = name;
  $("other").value = isServed(other) ? other : "";
}

/** Return whether a model knows a label. */
export const isKnown = (label) => models.some(({ labels }) => labels.includes(label));

/** Replace the chosen models that do not know a label that is known. */
export function chooseModelsThatKnow(label) {
  const knows = (name) => modelNamed(name)?.labels.includes(label);
  const able = models.find(({ name }) => knows(name)); // none, if it is no longer served
  if (able && !knows($("model").value)) $("model").value = able.name;
  if (!knows($("other").value)) $("other").value = "";
}
