// The controls of the view: they tell what the reader chooses, and show what is chosen.

import { h } from "./dom.js";
import { format } from "./maps.js";
import { QUANTITIES, hasQuantity } from "./quantities.js";

const div = (className, ...children) => h("div", { className }, ...children);
const radioGroup = (className, label) => h("div", { className, role: "radiogroup", "aria-label": label });

/** The elements of the view. `choose` is called with each change of the state that the reader asks for. */
export class Controls {
  #choose;
  #layers = radioGroup("segments", "PDE layer");
  #thumbnails = radioGroup("thumbnails", "What to show");
  #channels = radioGroup("segments", "Channels");
  #channel = h("input", { type: "range", id: "channel", min: 0, step: 1 });
  #channelText = h("output", { htmlFor: "channel" });
  #stepText = h("output", { htmlFor: "step" });
  #arrows = h("input", { type: "checkbox", id: "arrows" });
  #numbers = h("dl", { className: "numbers" });
  stage = h("canvas", { className: "stage", tabIndex: 0, role: "img", "aria-describedby": "readout" });
  readout = h("p", { id: "readout", className: "readout", role: "status" });
  step = h("input", { type: "range", id: "step", min: 0, step: 1 });
  play = h("button", { type: "button", id: "play", className: "round" });
  save = h("button", { type: "button", id: "save" }, "Save PNG");

  constructor(root, choose) {
    this.#choose = choose;
    this.#layOut(root);
    this.setPlaying(false);
    this.step.addEventListener("input", () => choose({ step: Number(this.step.value) }));
    this.#channel.addEventListener("input", () => choose({ channel: Number(this.#channel.value) }));
    this.#arrows.addEventListener("change", () => choose({ arrows: this.#arrows.checked }));
  }

  #layOut(root) {
    const steps = div("transport", this.play, h("label", { htmlFor: "step" }, "step"), this.step, this.#stepText);
    const channelLabel = h("label", { htmlFor: "channel" }, "channel");
    const oneChannel = div("transport", channelLabel, this.#channel, this.#channelText);
    const arrowsLabel = h("label", { className: "check" }, this.#arrows, " velocity as arrows");
    root.append(
      this.#layers,
      div(
        "workbench",
        div("scene", this.stage, steps, this.readout),
        div(
          "choices",
          this.#thumbnails,
          div("field", this.#channels, oneChannel),
          div("row", arrowsLabel, this.save),
          this.#numbers,
        ),
      ),
    );
  }

  setPlaying(isPlaying) {
    this.play.textContent = isPlaying ? "❚❚" : "▶";
    this.play.setAttribute("aria-label", isPlaying ? "Pause" : "Play");
  }

  /** Offer the layers of a network; `chosen` counts from 1. */
  showLayers(layers, chosen) {
    const options = layers.map(({ name, shape }, index) => [index + 1, name, ` · ${shape.join("×")}`]);
    showSegments(this.#layers, options, chosen, (value) => this.#choose({ layer: value, step: null }));
    this.#layers.hidden = layers.length < 2;
  }

  /** Show a state of a layer. */
  showState(layer, state) {
    this.#showChannel(layer.shape[2], state.channel);
    const last = layer.numLevels - 1;
    this.step.max = last;
    this.step.value = state.step;
    this.step.setAttribute("aria-valuetext", `step ${state.step} of ${last}`);
    this.#stepText.value = `${state.step} / ${last}`;
    this.#arrows.checked = state.arrows || state.show === "velocity";
    this.#arrows.disabled = !layer.fields.u || state.show === "velocity" || state.channel === "all";
    this.#showQuantities(layer, state.show);
    this.#showNumbers(layer);
  }

  #showChannel(count, channel) {
    const isOne = typeof channel === "number";
    this.#channel.max = count - 1;
    this.#channel.value = isOne ? channel : 0;
    this.#channel.disabled = !isOne;
    this.#channelText.value = isOne ? `${channel} / ${count - 1}` : channel;
    const options = [["one", "one channel"], ["mean", "mean"], ["all", "all channels"]];
    showSegments(this.#channels, options, isOne ? "one" : channel, (value) =>
      this.#choose({ channel: value === "one" ? Number(this.#channel.value) : value }),
    );
    this.#channels.parentElement.hidden = count === 1;
  }

  #showQuantities(layer, chosen) {
    const names = Object.keys(QUANTITIES).filter((name) => hasQuantity(layer, name));
    if (this.#thumbnails.dataset.names !== names.join()) {
      this.#thumbnails.dataset.names = names.join();
      this.#thumbnails.replaceChildren(
        ...names.map((name) => {
          const input = h("input", { type: "radio", name: "show", value: name });
          input.addEventListener("change", () => this.#choose({ show: name }));
          const { title, short } = QUANTITIES[name];
          return h("label", { title }, input, h("canvas", { "aria-hidden": "true" }), h("span", {}, short));
        }),
      );
    }
    for (const input of this.#thumbnails.querySelectorAll("input")) input.checked = input.value === chosen;
  }

  /** The canvases of the small maps, each with the name of its quantity. */
  get thumbnails() {
    return [...this.#thumbnails.children].map((label) => [label.firstChild.value, label.querySelector("canvas")]);
  }

  #showNumbers({ fields, courant, diffusion, unstable }) {
    const percent = 100 * unstable;
    const share = percent > 0 && percent < 0.1 ? "less than 0.1 %" : `${percent.toFixed(1)} %`;
    const rows = [
      ["Courant numbers |Ax| + |Ay|", fields.u ? extent(courant) : "no advection"],
      ["Diffusion numbers Bx + By", fields.Dx ? extent(diffusion) : "no diffusion"],
      ["Points outside the stable range", share],
    ];
    this.#numbers.replaceChildren(...rows.flatMap(([term, text]) => [h("dt", {}, term), h("dd", {}, text)]));
  }
}

/** Offer options, [value, text, small text], in a group; they are made anew only where they differ from the former. */
function showSegments(group, options, chosen, choose) {
  const key = JSON.stringify(options);
  if (group.dataset.options !== key) {
    group.dataset.options = key;
    const name = `segments-${group.getAttribute("aria-label")}`;
    group.replaceChildren(
      ...options.map(([value, text, size = ""]) => {
        const input = h("input", { type: "radio", name, value });
        input.addEventListener("change", () => choose(value));
        return h("label", {}, input, h("span", {}, text, h("span", { className: "size" }, size)));
      }),
    );
  }
  for (const input of group.querySelectorAll("input")) input.checked = input.value === String(chosen);
}

const extent = ({ maximum, mean }) => `at most ${format(maximum)}, on average ${format(mean)}`;
