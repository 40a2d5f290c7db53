// The page: takes a picture, asks the server, shows the answers, and lets the equation be changed.

import { readAddress, writeAddress } from "./address.js";
import { showAnswers, showNoAnswer } from "./answers.js";
import { $ } from "./dom.js";
import { EquationForm } from "./form.js";
import { attempt, say } from "./messages.js";
import {
  chooseModels, chooseModelsThatKnow, chosenNames, hasModels, isServed, listModels, modelNamed,
} from "./models.js";
import { offeredSamples, sampleFile, showSamples } from "./samples.js";
import { Problem, askForKey, inspect, load } from "./server.js";
import { copy, setUpCamera, setUpDrawing, setUpFiles } from "./sources.js";
import { PdeView } from "./view.js";

let picture = null; // { blob, name, sample }
let chosen = 0; // counts pictures that the reader has chosen: only the last is taken, however long the files load
let latest = 0; // counts requests: an answer that was overtaken is dropped
const view = new PdeView($("view"));
const form = new EquationForm(view, () => attempt(classify));

// --- start -----------------------------------------------------------------------------------------------------------

async function start() {
  await listChoices();
  const [first] = offeredSamples();
  if (!location.hash && first) return takeSample(first); // something to see at once
  return followAddress();
}

/** List the models that are served, and the samples that they know. */
async function listChoices() {
  await listModels();
  showSamples((sample) => attempt(() => takeSample(sample)));
}

/** Show what the address asks for, with the picture that is there if it names none. */
async function followAddress() {
  const wanted = readAddress();
  const sample = offeredSamples().find(([name]) => name === wanted.sample);
  const choose = () => {
    if (sample) chooseModelsThatKnow(sample[1]);
    chooseModels(wanted.model, wanted.other); // what the link names comes first
    view.reset(wanted.view);
  };
  if (!sample) choose();
  const notice = await (sample ? takeSample(sample, choose) : classify());
  return notice || missingModels([wanted.model, wanted.other]);
}

/** Return what the reader should know of the models that a link names. */
function missingModels(names) {
  const missing = names.filter((name) => name && !isServed(name)).join(" or ");
  const instead = picture ? ` This is the answer of ${$("model").value}.` : "";
  return missing && `The server has no model ${missing}.${instead}`;
}

function saveState() {
  writeAddress(view.state, { model: $("model").value, other: $("other").value, sample: picture?.sample });
}

// --- pictures --------------------------------------------------------------------------------------------------------

/** Take the first file. Like `classify`, return what the reader should know. */
async function takeFiles([file, ...others]) {
  const number = ++chosen;
  const blob = await copy(file);
  if (number !== chosen) return "";
  const notice = await takePicture(blob, file.name || "picture.png");
  return others.length ? `Only the first of these ${1 + others.length} files was taken. ${notice}` : notice;
}

/** Take a sample. Once it has been loaded, `choose` chooses the models. */
async function takeSample([name, label], choose = () => chooseModelsThatKnow(label)) {
  const number = ++chosen;
  const blob = await load(sampleFile(name));
  if (number !== chosen) return "";
  choose();
  return takePicture(blob, `${name}.png`, name);
}

/** Choose a model that knows digits, if there is one; return the data set whose digits a drawing is framed like. */
function prepareForDigit() {
  chooseModelsThatKnow("0");
  return modelNamed($("model").value)?.training.dataset;
}

/** Take a picture: show it and ask for its answer. */
async function takePicture(blob, name, sample = null) {
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

// --- answers ---------------------------------------------------------------------------------------------------------

/** Take back the answer that is shown: another picture or another model was chosen. */
function withdraw() {
  latest++;
  form.setAnswer(null);
  $("status").textContent = "";
  document.body.classList.add("outdated");
}

/** Ask for the answers to the picture and show them; return what the reader should know. */
async function classify() {
  if (!picture) return "";
  withdraw();
  const number = latest;
  const wanted = chosenNames();
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
  if (!hasModels()) await listChoices();
  if (!hasModels()) throw new Problem("The server has no model loaded.");
  const names = chosenNames();
  // How many layers a model has, its first answer tells. The arrays of a later one are asked for when it is shown.
  const former = view.inspection;
  const layer = former?.model === names[0] ? Math.min(view.state.layer, former.layers.length) : 1;
  try {
    return await Promise.all(
      names.map((name, index) => inspect(picture.blob, picture.name, { model: name, layer: index === 0 ? layer : 0 })),
    );
  } catch (error) {
    if (error.code !== "model_not_found") throw error;
    await listChoices();
    if (names.every(isServed)) throw error;
    return askModels();
  }
}

function show(found) {
  const [answer] = found;
  document.body.classList.remove("outdated");
  showAnswers(found);
  form.setAnswer(answer);
  showLayers(answer);
  saveState();
  const [best] = answer.top;
  $("status").textContent = `${answer.model}: ${best.label}, ${Math.round(100 * best.score)} %`;
}

function showNothing() {
  document.body.classList.remove("outdated");
  view.pause();
  showNoAnswer();
  for (const id of ["view", "values", "pde-note"]) $(id).hidden = true;
}

function showLayers(answer) {
  const hasLayers = answer.layers.length > 0;
  for (const id of ["view", "values"]) $(id).hidden = !hasLayers;
  $("pde-note").hidden = hasLayers;
  if (hasLayers) view.setInspection(answer);
  else {
    view.pause();
    const { model: name, trained_values: hasPde } = answer;
    $("pde-note").textContent = hasPde
      ? `The PDE layers of ${name} cannot be shown: its package does not describe them, or they are too large.`
      : `${name} has no PDE layers: there is no equation in it. Choose another model to see one at work.`;
  }
}

// --- what the reader does --------------------------------------------------------------------------------------------

view.addEventListener("change", ({ detail }) => {
  saveState();
  if (detail.layer && !view.layer) form.compute(); // the arrays of one layer come at a time
});
for (const id of ["model", "other"]) {
  $(id).addEventListener("change", () => {
    saveState();
    attempt(classify);
  });
}
const take = (list) => attempt(() => takeFiles(list));
setUpFiles($("file"), $("drop"), take, say);
setUpCamera($("camera"), $("camera-dialog"), take, say);
setUpDrawing($("draw"), $("draw-dialog"), prepareForDigit, take);
$("enter-key").addEventListener("click", async () => {
  if (await askForKey()) attempt(start);
});
addEventListener("hashchange", () => hasModels() && attempt(followAddress));

attempt(start);
