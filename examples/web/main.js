// The page: loads the network, takes pictures, shows the answers.

import { toPixels } from "./pixels.js";

const MODEL = "model"; // a model package: the page reads its card.json and model.onnx
const RUNTIME = "./node_modules/onnxruntime-web/dist/ort.wasm.bundle.min.mjs";
const SHOWN = 5;

const $ = (id) => document.getElementById(id);
let network = null; // { card, classify }

function say(text, isError = false) {
  $("message").textContent = text;
  $("message").classList.toggle("error", isError);
}

async function fetchFile(name) {
  const response = await fetch(`${MODEL}/${name}`);
  if (!response.ok) throw new Error(`${MODEL}/${name} is missing: copy a model package to the folder "${MODEL}"`);
  return response;
}

async function loadNetwork() {
  const runtime = await import(RUNTIME).catch(() => {
    throw new Error("onnxruntime-web is missing: run npm install");
  });
  const card = await (await fetchFile("card.json")).json();
  const content = new Uint8Array(await (await fetchFile("model.onnx")).arrayBuffer());
  runtime.env.logLevel = "error";
  runtime.env.wasm.numThreads = 1; // threads need a server that isolates the page; these networks are small
  const session = await runtime.InferenceSession.create(content);
  const { height, width, channels } = card.input;
  const classify = async (pixels) => {
    const image = new runtime.Tensor("uint8", pixels, [1, height, width, channels]);
    const { probabilities } = await session.run({ image }, ["probabilities"]);
    return probabilities.data;
  };
  await classify(new Uint8Array(height * width * channels)); // the first run is slow
  return { card, classify };
}

let latest = 0; // counts what is classified
let chosen = 0; // counts what the reader has chosen: only the last is shown, however long the others take

/** Classify a picture, and show what the network saw and its answer, unless another one came meanwhile. */
async function answer(source, width, height) {
  const { card, classify } = network;
  const turn = ++latest;
  const pixels = toPixels(source, width, height, card.input);
  const start = performance.now();
  const probabilities = await classify(pixels);
  const milliseconds = performance.now() - start;
  if (turn !== latest) return;
  showSeen(pixels, card.input);
  const rows = mostProbable(probabilities).map((index) => bar(card.labels[index], probabilities[index]));
  $("bars").replaceChildren(...rows);
  $("size").textContent = `${card.input.width} × ${card.input.height}, ${milliseconds.toFixed(1)} ms`;
  $("answer").hidden = false;
  say("");
}

function mostProbable(probabilities) {
  return [...probabilities.keys()].sort((a, b) => probabilities[b] - probabilities[a]).slice(0, SHOWN);
}

function bar(label, probability) {
  const [row, name, text, track, fill, score] = ["li", "span", "bdi", "span", "span", "data"].map((tag) =>
    document.createElement(tag),
  );
  name.className = "label";
  name.append(text);
  text.textContent = label; // in its own direction of writing
  track.className = "bar";
  fill.style.width = `${100 * probability}%`;
  track.append(fill);
  score.value = probability;
  score.textContent = `${(100 * probability).toFixed(1)} %`;
  row.append(name, score, track);
  return row;
}

function showSeen(pixels, { height, width, channels }) {
  const canvas = $("seen");
  const context = canvas.getContext("2d");
  [canvas.width, canvas.height] = [width, height];
  const image = context.createImageData(width, height);
  for (let index = 0; index < width * height; index++) {
    for (let channel = 0; channel < 3; channel++) {
      image.data[4 * index + channel] = pixels[index * channels + (channels === 1 ? 0 : channel)];
    }
    image.data[4 * index + 3] = 255;
  }
  context.putImageData(image, 0, 0);
}

async function take(file) {
  if (network === null || file === undefined) return;
  const turn = ++chosen;
  stopCamera();
  let bitmap;
  try {
    bitmap = await createImageBitmap(file, { colorSpaceConversion: "none" });
  } catch {
    if (turn === chosen) say(`${file.name} is not a picture that this browser can read.`, true);
    return;
  }
  if (turn !== chosen) {
    bitmap.close();
    return;
  }
  $("hint").hidden = true;
  const preview = $("preview");
  URL.revokeObjectURL(preview.src);
  preview.src = URL.createObjectURL(file);
  preview.classList.toggle("small", bitmap.width < 200);
  preview.hidden = false;
  try {
    await answer(bitmap, bitmap.width, bitmap.height);
  } catch (error) {
    if (turn !== chosen) return;
    $("answer").hidden = true; // that of the former picture
    say(`${file.name} cannot be classified: ${error.message}.`, true);
  } finally {
    bitmap.close();
  }
}

/** Take the file that was chosen; before the network is there, leave it until it is. */
function takeChosen() {
  if (network === null) return;
  const [file] = $("file").files;
  $("file").value = ""; // the same file can be chosen again
  return take(file);
}

let stream = null;
let isOpening = false; // the reader may still be asked

async function startCamera() {
  if (isOpening) return;
  isOpening = true;
  const turn = ++chosen;
  try {
    stream = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "environment" } });
  } catch (error) {
    const isBusy = error.name === "NotReadableError";
    const reason = isBusy ? "Another program may be using it" : "There is none, or the page may not use it";
    say(`The camera does not start. ${reason}.`, true);
    return;
  } finally {
    isOpening = false;
  }
  if (turn !== chosen) return stopCamera(); // a picture was chosen meanwhile
  const video = $("video");
  video.srcObject = stream;
  $("hint").hidden = $("preview").hidden = true;
  video.hidden = false;
  $("camera").setAttribute("aria-pressed", "true");
  const live = stream;
  while (true) {
    await new Promise((done) => video.requestVideoFrameCallback(done));
    if (stream !== live) return;
    await answer(video, video.videoWidth, video.videoHeight);
  }
}

function stopCamera() {
  stream?.getTracks().forEach((track) => track.stop());
  stream = null;
  $("video").hidden = true;
  $("hint").hidden = !$("preview").hidden;
  $("camera").setAttribute("aria-pressed", "false");
}

$("file").addEventListener("change", takeChosen);
$("camera").addEventListener("click", () => (stream === null ? startCamera() : stopCamera()));
document.addEventListener("paste", (event) => take(event.clipboardData.files[0]));
for (const name of ["dragover", "dragleave", "drop"]) {
  addEventListener(name, (event) => {
    event.preventDefault();
    $("drop").classList.toggle("over", name === "dragover");
    if (name === "drop") take(event.dataTransfer.files[0]);
  });
}

try {
  network = await loadNetwork();
  const { name, labels, metrics, files } = network.card;
  const percent = (100 * metrics.test_accuracy).toFixed(1);
  const accuracy = metrics.test_accuracy === undefined ? "" : `, ${percent} % right on its test images`;
  const size = (files["model.onnx"].bytes / 1024).toFixed(0);
  $("model").textContent = `${name}: ${size} KiB${accuracy}. It knows ${labels.join(", ")}.`;
  say("Choose a picture, and the answer appears here.");
  $("camera").disabled = !navigator.mediaDevices;
  await takeChosen(); // chosen while the network was loading
} catch (error) {
  say(error.message, true);
}
