// The samples that the page offers: pictures of classes that a model knows.

import { $, h } from "./dom.js";
import { isKnown } from "./models.js";

// Each with its label.
const SAMPLES = [
  ["ship", "ship"], ["airplane", "airplane"], ["automobile", "automobile"], ["frog", "frog"],
  ["digit-0", "0"], ["digit-3", "3"], ["digit-5", "5"], ["digit-7", "7"],
];

export const sampleFile = (name) => `page/samples/${name}.png`;

/** Return the samples, [name, label], of which a model knows the label. */
export const offeredSamples = () => SAMPLES.filter(([, label]) => isKnown(label));

/** Show the samples; `take` gets the one that the reader clicks. */
export function showSamples(take) {
  $("samples").replaceChildren(
    ...offeredSamples().map(([name, label]) => {
      const image = h("img", { src: sampleFile(name), alt: "", width: 56, height: 56 });
      const button = h("button", { type: "button", "data-sample": name, "aria-label": `sample: ${label}` }, image);
      button.addEventListener("click", () => take([name, label]));
      return h("li", {}, button);
    }),
  );
}
