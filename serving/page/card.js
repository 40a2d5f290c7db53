// The card of a model: what it was trained on, what was measured, and its limits.

import { shownLabel } from "./answer.js";
import { h } from "./dom.js";

/** Return what is known about a model, as an element that opens. */
export function card(entry, isOpen) {
  const number = new Intl.NumberFormat("en");
  const { input, labels, metrics, training, pde } = entry;
  const trained = [
    training.dataset,
    training.epochs && `${training.epochs} epochs`,
    training.seed !== null && `seed ${training.seed}`,
  ];
  const images = metrics.test_images ? ` of ${number.format(metrics.test_images)} images` : "";
  const accuracy = `${(100 * metrics.test_accuracy).toFixed(2)} %${images}, one seed`;
  const rows = [
    ["classes", ...(labels.length > 12 ? [`${labels.length}`] : listed(labels))],
    ["trained on", trained.filter(Boolean).join(", ") || "not recorded"],
    ["test accuracy", metrics.test_accuracy ? accuracy : "not recorded"],
    ["parameters", number.format(entry.parameters)],
    ["multiply-adds", number.format(entry.macs)],
    ["PDE layers", pde ? `K = ${pde.num_steps} step${pde.num_steps > 1 ? "s" : ""} of dt = ${pde.dt}` : "none"],
    ["runs on", `${entry.device}, ${entry.precision}`],
  ];
  const limits = [
    `It knows ${labels.length} classes and divides 100 % among them, whatever a picture shows.`,
    `Its probabilities ${metrics.calibration ? "were calibrated on validation images" : "are not calibrated"}.`,
    `It sees ${input.width} x ${input.height} pixels, in ${input.channels === 1 ? "grey" : "colour"}.`,
    "The accuracy is that on test images of the same source. Other pictures lower it.",
  ].map((text) => h("li", {}, text));
  return h(
    "details",
    { className: "model-card", open: isOpen },
    h("summary", {}, `About ${entry.name}`),
    h("dl", {}, ...rows.flatMap(([term, ...texts]) => [h("dt", {}, term), h("dd", {}, ...texts)])),
    h("ul", {}, ...limits, weakest(entry)),
  );
}

const listed = (labels) => labels.flatMap((label, index) => [index ? ", " : "", shownLabel(label)]);

function weakest({ metrics, labels }) {
  if (!Array.isArray(metrics.confusion)) return null;
  const [worst] = metrics.confusion
    .map((row, index) => ({ label: labels[index], share: row[index] / row.reduce((sum, count) => sum + count, 0) }))
    .filter(({ share }) => !Number.isNaN(share)) // a class without test images
    .sort((a, b) => a.share - b.share);
  if (!worst) return null;
  const share = `: ${(100 * worst.share).toFixed(1)} % of its test images are recognised.`;
  return h("li", {}, "The weakest class is ", shownLabel(worst.label), share);
}
