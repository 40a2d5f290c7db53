// The page: takes a picture, asks the server, shows the answers, and lets the equation be changed.

import { readAddress, writeAddress } from "./address.js";
import { bars, seen, shownLabel, times } from "./answer.js";
import { card } from "./card.js";
import { h } from "./dom.js";
import { equation } from "./equation.js";
import { pixelCanvas } from "./maps.js";
import { Problem, ask, askForKey, inspect, load } from "./server.js";
import { camera, drawing } from "./sources.js";
import { PdeView } from "./view.js";

const $ = (id) => document.getElementById(id);

const SAMPLES = [
  ["ship", "ship"], ["airplane", "airplane"], ["automobile", "automobile"], ["frog", "frog"],
  ["digit-0", "0"], ["digit-3", "3"], ["digit-5", "5"], ["digit-7", "7"],
];

const HINT = "Change the equation: the network is computed again, with the new values in all of its PDE layers.";

let models = [];
let samples = []; // those of SAMPLES that a model knows
let picture = null; // { blob, name, sample }
let answer = null; // to this picture, of the model as trained, decoded; null until it has come
let chosen = 0; // counts pictures that the reader has chosen: only the last is taken, however long the files load
let latest = 0; // counts requests: an answer that was overtaken is dropped
let attempts = 0; // counts what the reader has begun: only the last has a message
const view = new PdeView($("view"));

// --- messages --------------------------------------------------------------------------------------------------------

function say(text, retry = null) {
  const box = $("message");
  box.hidden = !text;
  box.replaceChildren(...(text ? [h("span", {}, text)] : []));
  if (text && retry) {
    const button = h("button", { type: "button" }, "Try again");
    button.addEventListener("click", retry);
    box.append(button);
  }
}

/** Run work for the reader; show what it tells or what went wrong, unless more was begun meanwhile. */
async function attempt(work) {
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

function saveState() {
  writeAddress(view.state, { model: $("model").value, other: $("other").value, sample: picture?.sample });
}

// --- models ----------------------------------------------------------------------------------------------------------

const model = () => models.find(({ name }) => name === $("model").value);
const chosenModels = () => [$("model").value, $("other").value].filter(Boolean);
const isServed = (name) => models.some((entry) => entry.name === name);

/** Ask which models are served. What is chosen stays chosen; if it is gone, the default takes its place. */
async function listModels() {
  const listed = await ask("models");
  const [former, other] = [$("model").value, $("other").value];
  models = [...new Map(listed.models.toReversed().map((entry) => [entry.name, entry])).values()].toReversed();
  const option = ({ name }) => h("option", { value: name }, name);
  $("model").replaceChildren(...models.map(option));
  $("other").replaceChildren(h("option", { value: "" }, "no other"), ...models.map(option));
  if (listed.default) $("model").value = isServed(former) ? former : listed.default;
  if (isServed(other)) $("other").value = other;
  const labels = new Set(models.flatMap((entry) => entry.labels));
  samples = SAMPLES.filter(([, label]) => labels.has(label));
  showSamples();
}

async function loadModels() {
  await listModels();
  if (!location.hash && samples.length) return takeSample(samples[0][0]); // something to see at once
  return followAddress();
}

/** Show what the address asks for, with the picture that is there if it names none. */
async function followAddress() {
  const wanted = readAddress();
  const choose = () => {
    if (isServed(wanted.model)) $("model").value = wanted.model;
    $("other").value = isServed(wanted.other) ? wanted.other : "";
    view.reset(wanted.view);
  };
  if (samples.some(([name]) => name === wanted.sample)) return takeSample(wanted.sample, choose);
  choose();
  return classify();
}

function showSamples() {
  $("samples").replaceChildren(
    ...samples.map(([name, label]) => {
      const image = h("img", { src: `page/samples/${name}.png`, alt: "", width: 56, height: 56 });
      const button = h("button", { type: "button", "data-sample": name, "aria-label": `sample: ${label}` }, image);
      button.addEventListener("click", () => attempt(() => takeSample(name)));
      return h("li", {}, button);
    }),
  );
}

// --- pictures --------------------------------------------------------------------------------------------------------

/** Take a sample; `choose` is called once it has been loaded. */
async function takeSample(name, choose = () => {}) {
  const number = ++chosen;
  const blob = await load(`page/samples/${name}.png`);
  if (number !== chosen) return "";
  choose();
  const [, label] = SAMPLES.find(([sample]) => sample === name);
  const knows = (name) => models.some((entry) => entry.name === name && entry.labels.includes(label));
  if (!knows($("model").value)) $("model").value = models.find((entry) => knows(entry.name)).name;
  if (!knows($("other").value)) $("other").value = "";
  return take(blob, `${name}.png`, name);
}

/** Take a picture: show it and ask for its answer. Like `classify`, return what the reader should know. */
async function take(blob, name, sample = null) {
  const mine = { blob, name, sample };
  picture = mine;
  withdraw();
  const preview = $("preview");
  if (preview.src) URL.revokeObjectURL(preview.src);
  preview.src = URL.createObjectURL(blob);
  preview.alt = sample ? `sample: ${sample}` : `your picture ${name}`;
  preview.hidden = false;
  const isShown = await preview.decode().then(() => true, () => false);
  if (picture !== mine) return "";
  preview.hidden = !isShown; // a format that only the server knows
  preview.classList.toggle("small", preview.naturalWidth < 64);
  return classify();
}

/** Return a copy of a file: other models may be asked about it after it was moved or deleted. */
async function copy(file) {
  const content = await file.arrayBuffer().catch(() => {
    throw new Problem("This file cannot be read: it is a folder, it was moved, or it is too large.");
  });
  return new Blob([content], { type: file.type });
}

// --- answers ---------------------------------------------------------------------------------------------------------

/** Take back the answer that is shown: another picture or another model was chosen. */
function withdraw() {
  latest++;
  answer = null;
  $("status").textContent = "";
  document.body.classList.add("outdated");
}

/** Ask for the answers to the picture and show them; return what the reader should know. */
async function classify() {
  if (!picture) return "";
  withdraw();
  const number = latest;
  const wanted = chosenModels();
  try {
    const found = await askModels();
    if (number === latest) show(found);
    const gone = wanted.filter((name) => !isServed(name)).join(" and ");
    return gone && `The server no longer has ${gone}. This is the answer of ${found[0].model}.`;
  } catch (error) {
    if (number === latest) showNothing();
    throw error;
  }
}

/** Return the answers of the chosen models, or of others if the server no longer has those. */
async function askModels() {
  if (!models.length) await listModels();
  if (!models.length) throw new Problem("The server has no model loaded.");
  const names = chosenModels();
  // How many layers a model has, its first answer tells. The arrays of a later one are asked for when it is shown.
  const former = view.inspection;
  const layer = former?.model === names[0] ? Math.min(view.state.layer, former.layers.length) : 1;
  try {
    return await Promise.all(
      names.map((name, index) => inspect(picture.blob, picture.name, { model: name, layer: index === 0 ? layer : 0 })),
    );
  } catch (error) {
    if (error.code !== "model_not_found") throw error;
    await listModels();
    if (names.every(isServed)) throw error;
    return askModels();
  }
}

function show(found) {
  [answer] = found;
  document.body.classList.remove("outdated");
  showAnswers(found);
  setValues(answer.trained_values);
  showLayers(answer);
  saveState();
  const [best] = answer.top;
  $("status").textContent = `${answer.model}: ${best.label}, ${Math.round(100 * best.score)} %`;
}

function showNothing() {
  document.body.classList.remove("outdated");
  view.pause();
  $("answers").replaceChildren(h("p", { className: "note" }, "There is no answer to this picture yet."));
  for (const id of ["view", "values", "pde-note"]) $(id).hidden = true;
}

function showAnswers(found) {
  $("answers").replaceChildren(
    ...found.map((one) => {
      const entry = models.find(({ name }) => name === one.model);
      const millions = (entry.macs / 1e6).toFixed(entry.macs < 1e6 ? 2 : 1);
      const thousands = (entry.parameters / 1000).toFixed(entry.parameters < 10000 ? 1 : 0);
      const cost = `${millions} M multiply-adds, ${thousands} k parameters`;
      return h(
        "article",
        { className: "answer", "aria-label": one.model },
        found.length > 1 ? h("h3", {}, one.model) : null,
        h(
          "div",
          { className: "verdict" },
          seen(one.pixels),
          h("div", {}, bars(one.top), h("p", { className: "note cost" }, cost)),
        ),
        times(one.milliseconds),
        card(entry, found.length === 1 && innerWidth > 960),
      );
    }),
  );
}

function showLayers(inspection) {
  const hasLayers = inspection.layers.length > 0;
  if (!hasLayers) view.pause();
  $("view").hidden = !hasLayers;
  $("values").hidden = !hasLayers;
  $("pde-note").hidden = hasLayers;
  if (hasLayers) view.setInspection(inspection);
  else {
    const { model: name, trained_values: hasPde } = inspection;
    $("pde-note").textContent = hasPde
      ? `The PDE layers of ${name} cannot be shown: its package does not describe them, or they are too large.`
      : `${name} has no PDE layers: there is no equation in it. Choose another model to see one at work.`;
  }
}

// --- play ------------------------------------------------------------------------------------------------------------

let isAsking = false; // one request at a time; the last values win
let isWaiting = false;
const moved = new Set(); // what the reader has changed, by the server's names

/** Return the values that the reader has changed. The sliders may be unable to stand on the trained ones. */
function changes() {
  const all = {
    dt: Number((10 ** Number($("dt").value)).toPrecision(2)),
    num_steps: Number($("num-steps").value),
    advection: $("advection").checked,
    diffusion: $("diffusion").checked,
  };
  return Object.fromEntries(Object.entries(all).filter(([name]) => moved.has(name)));
}

function setValues(trained) {
  moved.clear();
  if (!trained) return;
  $("dt").value = Math.log10(trained.dt);
  $("num-steps").value = trained.num_steps;
  $("advection").checked = trained.advection;
  $("diffusion").checked = trained.diffusion;
  for (const name of ["dt", "num-steps", "advection", "diffusion", "reset"]) $(name).disabled = !answer.can_change;
  if (!trained.advection) $("advection").disabled = true;
  if (!trained.diffusion) $("diffusion").disabled = true;
  const outdated = `The package of ${answer.model} was made before its equation could be changed: export it again.`;
  $("play-note").textContent = answer.can_change ? HINT : outdated;
  showValues();
}

function showValues() {
  const now = { ...answer.trained_values, ...changes() };
  for (const [id, value] of [["dt", now.dt], ["num-steps", now.num_steps]]) {
    $(`${id}-text`).value = String(value);
    $(id).setAttribute("aria-valuetext", String(value));
  }
  equation($("equation"), now);
}

async function play() {
  if (!answer) return; // its values are shown when it comes
  showValues();
  isWaiting = true;
  if (isAsking) return;
  isAsking = true;
  try {
    while (isWaiting && answer) {
      isWaiting = false;
      await compute(answer);
    }
  } finally {
    isAsking = false;
  }
}

/** Compute what is shown anew, with the values that the reader has changed. */
async function compute(shown) {
  const started = performance.now();
  try {
    const blob = await pixelCanvas(shown.pixels).convertToBlob(); // what the network saw: exact, and small
    const changed = await inspect(blob, picture.name, { model: shown.model, layer: view.state.layer, ...changes() });
    if (answer !== shown) return;
    view.setInspection(changed);
    showChanged(changed, performance.now() - started);
    say("");
  } catch (error) {
    if (!(error instanceof Problem)) throw error;
    if (answer !== shown) return;
    if (error.code === "model_not_found") attempt(classify);
    else say(error.message, play);
  }
}

function showChanged(changed, milliseconds) {
  const article = $("answers").firstElementChild;
  const list = article.querySelector(".bars, .verdict .note");
  const isTrained = JSON.stringify(changed.values) === JSON.stringify(answer.trained_values);
  list.replaceWith(bars(changed.top, isTrained ? null : answer.top));
  const [best] = changed.top ?? [];
  const [former] = answer.top;
  const label = best && shownLabel(best.label);
  let result = ["no answer"];
  if (best) {
    const isSame = best.index === former.index;
    result = isSame ? ["still ", label] : [shownLabel(former.label), " has become ", label];
  }
  const time = `. Computed and shown in ${Math.round(milliseconds)} ms.`;
  $("play-note").replaceChildren(...(isTrained ? [HINT] : ["Changed: ", ...result, time]));
}

// --- start -----------------------------------------------------------------------------------------------------------

view.addEventListener("change", ({ detail }) => {
  saveState();
  // The arrays of one layer come at a time.
  if (detail.layer && answer && !view.layer) play();
});
for (const id of ["dt", "num-steps", "advection", "diffusion"]) {
  $(id).addEventListener("input", () => {
    moved.add(id.replace("-", "_"));
    play();
  });
}
$("reset").addEventListener("click", () => {
  if (!answer) return;
  setValues(answer.trained_values);
  play();
});
$("values").addEventListener("submit", (event) => event.preventDefault());
for (const id of ["model", "other"]) {
  $(id).addEventListener("change", () => {
    saveState();
    attempt(classify);
  });
}

const takeFiles = ([file, ...others]) =>
  attempt(async () => {
    const number = ++chosen;
    const blob = await copy(file);
    if (number !== chosen) return "";
    const notice = await take(blob, file.name || "picture.png");
    return others.length ? `Only the first of these ${1 + others.length} files was taken. ${notice}` : notice;
  });
$("file").addEventListener("change", () => {
  const { files } = $("file");
  if (files.length) takeFiles(files);
  $("file").value = ""; // the same file can be chosen again
});
for (const type of ["dragover", "drop", "dragleave"]) {
  addEventListener(type, (event) => {
    event.preventDefault();
    $("drop").classList.toggle("over", type === "dragover");
    if (type !== "drop") return;
    const { files } = event.dataTransfer;
    if (files.length) takeFiles(files);
    else say("Drop a picture file here; that was something else.");
  });
}
addEventListener("paste", (event) => {
  const { files } = event.clipboardData;
  if (files.length) takeFiles(files);
  else if (event.target !== $("key")) say("The clipboard holds no picture.");
});
$("enter-key").addEventListener("click", async () => {
  if (await askForKey()) start();
});
camera($("camera"), $("camera-dialog"), (file) => takeFiles([file]), say);
drawing($("draw"), $("draw-dialog"), () => model()?.training.dataset, (file) => takeFiles([file]));

addEventListener("hashchange", () => models.length && attempt(followAddress));
const start = () => attempt(loadModels);
equation($("equation"), { advection: true, diffusion: true });
start();
