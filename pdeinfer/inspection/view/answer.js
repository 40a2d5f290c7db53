// Decodes what /inspect answers, and shows the answer: the classes, the times and the pixels that the network saw.

import { h } from "./dom.js";
import { pixelCanvas, prepare } from "./maps.js";

function bytes(base64) {
  if (Uint8Array.fromBase64) return Uint8Array.fromBase64(base64);
  const text = atob(base64);
  const result = new Uint8Array(text.length);
  for (let index = 0; index < text.length; index++) result[index] = text.charCodeAt(index);
  return result;
}

function array(value) {
  if (value === null) return null;
  const content = bytes(value.data);
  // Base64 is little-endian, as is every machine that runs a browser today.
  return value.dtype === "uint8" ? content : new Float32Array(content.buffer, content.byteOffset, content.length / 4);
}

const mapped = (object, change) =>
  Object.fromEntries(Object.entries(object).map(([name, value]) => [name, change(value)]));

/** Return an answer of /inspect with typed arrays in place of base64. */
export function decode(answer) {
  const layers = answer.layers.map((layer) => ({
    ...layer,
    fields: layer.fields && mapped(layer.fields, array),
    levels: array(layer.levels),
    numLevels: layer.levels ? layer.levels.shape[0] : 0,
    stable: array(layer.stable),
  }));
  return { ...answer, pixels: { shape: answer.pixels.shape, data: array(answer.pixels) }, layers };
}

const percent = (score) => `${(100 * score).toFixed(score >= 0.9995 || score < 0.0005 ? 0 : 1)} %`;

/** Return a label, which keeps to its own direction of writing. */
export const shownLabel = (label) => h("bdi", {}, label);

/** Return the classes of an answer as bars; with `before`, marks show the scores that they had. */
export function bars(top, before = null) {
  if (top === null) {
    const text = "No answer: the values of the network are no longer finite. Take a shorter time step, or fewer steps.";
    return h("p", { className: "note" }, text);
  }
  const former = new Map((before ?? []).map(({ index, score }) => [index, score]));
  const rows = top.slice(0, 5).map(({ label, index, score }) => {
    const bar = h("span", { className: "bar", "aria-hidden": "true" }, h("span", { className: "fill" }));
    bar.firstChild.style.width = `${100 * score}%`;
    if (former.has(index)) {
      const mark = h("span", { className: "mark", title: "as trained" });
      mark.style.left = `${100 * former.get(index)}%`;
      bar.append(mark);
    }
    const name = h("span", { className: "label" }, shownLabel(label));
    return h("li", {}, name, bar, h("span", { className: "score" }, percent(score)));
  });
  return h("ol", { className: "bars" }, ...rows);
}

const PARTS = [
  ["decode", "decoding"],
  ["queue", "queue"],
  ["inference", "inference"],
];

/** Return the times of an answer as a split bar with a legend. */
export function times(milliseconds) {
  const total = PARTS.reduce((sum, [name]) => sum + milliseconds[name], 0);
  const split = h("div", { className: "split", "aria-hidden": "true" });
  const legend = h("ul", { className: "legend" });
  for (const [name, title] of PARTS) {
    const part = h("span", { className: name });
    part.style.flexGrow = milliseconds[name] / (total || 1);
    split.append(part);
    legend.append(h("li", { className: name }, `${title} ${milliseconds[name].toFixed(1)} ms`));
  }
  return h("div", { className: "times" }, split, legend);
}

/** Return a canvas of the pixels that the network saw. */
export function seen(pixels) {
  const [height, width] = pixels.shape;
  const label = `the ${width} x ${height} pixels that the network saw`;
  const canvas = h("canvas", { className: "seen", role: "img", "aria-label": label });
  requestAnimationFrame(() => {
    const { context, width: size, height: tall } = prepare(canvas, height / width);
    context.drawImage(pixelCanvas(pixels), 0, 0, size, tall);
  });
  return canvas;
}
