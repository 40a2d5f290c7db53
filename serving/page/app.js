// The page: takes a picture, asks the server, shows the answers, and lets the equation be changed.

import { readAddress, writeAddress } from "./address.js";
import { bars, h, seen, times } from "./answer.js";
import { card } from "./card.js";
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
let picture = null; // { blob, name, sample }
let answer = null; // of the model as trained, decoded
let latest = 0; // counts requests: an answer that was overtaken is dropped
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

/** Run work for the reader; show what went wrong. */
async function attempt(work, retry = null) {
  document.body.classList.add("busy");
  try {
    const result = await work();
    say("");
    return result;
  } catch (error) {
    if (!(error instanceof Problem)) throw error;
    say(error.message, retry);
    return undefined;
  } finally {
    document.body.classList.remove("busy");
  }
}

function saveState() {
  writeAddress(view.state, { model: $("model").value, other: $("other").value, sample: picture?.sample });
}

// --- models ----------------------------------------------------------------------------------------------------------

const model = () => models.find(({ name }) => name === $("model").value);

async function loadModels() {
  const listed = await ask("models");
  models = [...new Map(listed.models.toReversed().map((entry) => [entry.name, entry])).values()].toReversed();
  const option = ({ name }) => h("option", { value: name }, name);
  const wanted = readAddress();
  $("model").replaceChildren(...models.map(option));
  $("other").replaceChildren(h("option", { value: "" }, "no other"), ...models.map(option));
  const has = (name) => models.some((entry) => entry.name === name);
  if (has(wanted.model)) $("model").value = wanted.model;
  else if (listed.default) $("model").value = listed.default;
  if (has(wanted.other)) $("other").value = wanted.other;
  Object.assign(view.state, wanted.view);
  const labels = new Set(models.flatMap((entry) => entry.labels));
  const samples = SAMPLES.filter(([, label]) => labels.has(label));
  showSamples(samples);
  if (samples.some(([name]) => name === wanted.sample)) await takeSample(wanted.sample);
  else if (!location.hash && samples.length) await takeSample(samples[0][0]); // something to see at once
}

function showSamples(samples) {
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

async function takeSample(name) {
  const [, label] = SAMPLES.find(([sample]) => sample === name);
  const knows = (name) => models.some((entry) => entry.name === name && entry.labels.includes(label));
  if (!knows($("model").value)) $("model").value = models.find((entry) => knows(entry.name)).name;
  if (!knows($("other").value)) $("other").value = "";
  await take(await load(`page/samples/${name}.png`), `${name}.png`, name);
}

/** Take a picture: show it and ask for its answer. */
async function take(blob, name, sample = null) {
  picture = { blob, name, sample };
  const preview = $("preview");
  if (preview.src) URL.revokeObjectURL(preview.src);
  preview.src = URL.createObjectURL(blob);
  preview.alt = sample ? `sample: ${sample}` : `your picture ${name}`;
  preview.hidden = false;
  await preview.decode().catch(() => (preview.hidden = true)); // a format that only the server knows
  preview.classList.toggle("small", preview.naturalWidth < 64);
  await classify();
}

// --- answers ---------------------------------------------------------------------------------------------------------

async function classify() {
  if (!picture) return;
  if (!models.length) throw new Problem("The server has no model loaded.");
  const number = ++latest;
  const names = [$("model").value, $("other").value].filter(Boolean);
  // How many layers a model has, its first answer tells. The arrays of a later one are asked for when it is shown.
  const layer = answer?.model === names[0] ? Math.min(view.state.layer, answer.layers.length) : 1;
  const found = await Promise.all(
    names.map((name, index) => inspect(picture.blob, picture.name, { model: name, layer: index === 0 ? layer : 0 })),
  );
  if (number !== latest) return;
  [answer] = found;
  showAnswers(found);
  setValues(answer.trained_values);
  showLayers(answer);
  saveState();
  const [best] = answer.top;
  $("status").textContent = `${answer.model}: ${best.label}, ${Math.round(100 * best.score)} %`;
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

const values = () => ({
  dt: Number((10 ** Number($("dt").value)).toPrecision(2)),
  num_steps: Number($("num-steps").value),
  advection: $("advection").checked,
  diffusion: $("diffusion").checked,
});

function setValues(trained) {
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
  const now = values();
  $("dt-text").value = String(now.dt);
  $("dt").setAttribute("aria-valuetext", String(now.dt));
  $("num-steps-text").value = String(now.num_steps);
  equation($("equation"), now);
}

async function play() {
  showValues();
  if (isAsking) {
    isWaiting = true;
    return;
  }
  isAsking = true;
  try {
    do {
      isWaiting = false;
      const [number, started] = [latest, performance.now()];
      const blob = await pixelCanvas(answer.pixels).convertToBlob(); // what the network saw: exact, and small
      const changed = await inspect(blob, picture.name, { model: answer.model, layer: view.state.layer, ...values() });
      if (number !== latest) return;
      const { step } = view.state;
      if (view.layer && step === view.layer.numLevels - 1) view.state.step = null; // stays at the last one
      view.setInspection(changed);
      showChanged(changed, performance.now() - started);
      say("");
    } while (isWaiting);
  } catch (error) {
    if (!(error instanceof Problem)) throw error;
    say(error.message, play);
  } finally {
    isAsking = false;
  }
}

function showChanged(changed, milliseconds) {
  const article = $("answers").firstElementChild;
  const list = article.querySelector(".bars, .verdict .note");
  const isTrained = JSON.stringify(changed.values) === JSON.stringify(answer.trained_values);
  list.replaceWith(bars(changed.top, isTrained ? null : answer.top));
  const [best] = changed.top ?? [];
  const [former] = answer.top;
  let text = "no answer";
  if (best) text = best.index === former.index ? `still ${best.label}` : `${former.label} has become ${best.label}`;
  const time = `Computed and shown in ${Math.round(milliseconds)} ms.`;
  $("play-note").textContent = isTrained ? HINT : `Changed: ${text}. ${time}`;
}

// --- start -----------------------------------------------------------------------------------------------------------

view.addEventListener("change", ({ detail }) => {
  saveState();
  // The arrays of one layer come at a time.
  if (detail.layer && answer && !view.layer) play();
});
for (const id of ["dt", "num-steps", "advection", "diffusion"]) $(id).addEventListener("input", play);
$("reset").addEventListener("click", () => {
  setValues(answer.trained_values);
  play();
});
$("values").addEventListener("submit", (event) => event.preventDefault());
for (const id of ["model", "other"]) {
  $(id).addEventListener("change", () => {
    saveState();
    attempt(classify, () => attempt(classify));
  });
}

const takeFile = (file) => attempt(() => take(file, file.name || "picture.png"), () => takeFile(file));
$("file").addEventListener("change", () => {
  const [file] = $("file").files;
  if (file) takeFile(file);
  $("file").value = ""; // the same file can be chosen again
});
for (const type of ["dragover", "drop", "dragleave"]) {
  addEventListener(type, (event) => {
    event.preventDefault();
    $("drop").classList.toggle("over", type === "dragover");
    if (type !== "drop") return;
    const [file] = event.dataTransfer.files;
    if (file) takeFile(file);
    else say("Drop a picture file here; that was something else.");
  });
}
addEventListener("paste", (event) => {
  const [file] = event.clipboardData.files;
  if (file) takeFile(file);
  else if (event.target !== $("key")) say("The clipboard holds no picture.");
});
$("enter-key").addEventListener("click", async () => {
  if (await askForKey()) start();
});
camera($("camera"), $("camera-dialog"), takeFile, say);
drawing($("draw"), $("draw-dialog"), () => model()?.training.dataset, takeFile);

const start = () => attempt(loadModels, start);
equation($("equation"), { advection: true, diffusion: true });
start();
