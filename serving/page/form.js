// The form that changes the equation: the server computes what is shown anew, with the reader's values.

import { shownLabel } from "./answer.js";
import { replaceBars } from "./answers.js";
import { $ } from "./dom.js";
import { showEquation } from "./equation.js";
import { pixelCanvas } from "./maps.js";
import { say } from "./messages.js";
import { Problem, inspect } from "./server.js";

const VALUES = ["dt", "num-steps", "advection", "diffusion"]; // the ids of the inputs
const HINT = "Change the equation: the network is computed again, with the new values in all of its PDE layers.";

/** The form, which changes what the view shows; `whenGone` is called if the server no longer has the model. */
export class EquationForm {
  #view;
  #whenGone;
  #answer = null; // of the model as trained; null until it has come
  #moved = new Set(); // what the reader has changed, by the server's names
  #isAsking = false; // one request at a time; the last values win
  #isWaiting = false;
  #message = null; // the last that the form has shown

  constructor(view, whenGone) {
    this.#view = view;
    this.#whenGone = whenGone;
    showEquation($("equation"), { advection: true, diffusion: true, source: true });
    for (const id of VALUES) {
      $(id).addEventListener("input", () => {
        this.#moved.add(id.replace("-", "_"));
        this.compute();
      });
    }
    $("reset").addEventListener("click", () => {
      if (!this.#answer) return;
      this.setAnswer(this.#answer);
      this.compute();
    });
    $("values").addEventListener("submit", (event) => event.preventDefault());
  }

  /** Show the values that an answer's model was trained with; null: there is no answer to change. */
  setAnswer(answer) {
    this.#answer = answer;
    this.#moved.clear();
    if (!answer?.trained_values) return;
    const { model, trained_values: trained, can_change: canChange } = answer;
    $("dt").value = Math.log10(trained.dt);
    $("num-steps").value = trained.num_steps;
    $("advection").checked = trained.advection;
    $("diffusion").checked = trained.diffusion;
    for (const id of [...VALUES, "reset"]) $(id).disabled = !canChange;
    if (!trained.advection) $("advection").disabled = true;
    if (!trained.diffusion) $("diffusion").disabled = true;
    const outdated = `The package of ${model} was made before its equation could be changed: export it again.`;
    $("play-note").textContent = canChange ? HINT : outdated;
    this.#showValues();
  }

  /** Return the values that the reader has changed. The sliders may be unable to stand on the trained ones. */
  #changes() {
    const all = {
      dt: Number((10 ** Number($("dt").value)).toPrecision(2)),
      num_steps: Number($("num-steps").value),
      advection: $("advection").checked,
      diffusion: $("diffusion").checked,
    };
    return Object.fromEntries(Object.entries(all).filter(([name]) => this.#moved.has(name)));
  }

  #showValues() {
    const now = { ...this.#answer.trained_values, ...this.#changes() };
    for (const [id, value] of [["dt", now.dt], ["num-steps", now.num_steps]]) {
      $(`${id}-text`).value = String(value);
      $(id).setAttribute("aria-valuetext", String(value));
    }
    showEquation($("equation"), now);
  }

  /** Compute what the view shows, with the values that the reader has changed. */
  async compute() {
    if (!this.#answer) return; // its values are shown when it comes
    this.#showValues();
    this.#isWaiting = true;
    if (this.#isAsking) return;
    this.#isAsking = true;
    try {
      while (this.#isWaiting && this.#answer) {
        this.#isWaiting = false;
        await this.#ask(this.#answer);
      }
    } finally {
      this.#isAsking = false;
    }
  }

  async #ask(answer) {
    const { model, filename, pixels } = answer;
    const started = performance.now();
    try {
      const blob = await pixelCanvas(pixels).convertToBlob(); // what the network saw: exact, and small
      const changed = await inspect(blob, filename, { model, layer: this.#view.state.layer, ...this.#changes() });
      if (this.#answer !== answer) return;
      this.#view.setInspection(changed);
      this.#showChanged(changed, performance.now() - started);
      if (this.#message?.isConnected) say("");
    } catch (error) {
      if (!(error instanceof Problem)) throw error;
      if (this.#answer !== answer) return;
      if (error.code === "model_not_found") this.#whenGone();
      else this.#message = say(error.message, () => this.compute());
    }
  }

  /** Show what has become of the answer. */
  #showChanged(changed, milliseconds) {
    const { top, trained_values: trained } = this.#answer;
    const isTrained = JSON.stringify(changed.values) === JSON.stringify(trained);
    replaceBars(changed.top, isTrained ? null : top);
    const [best] = changed.top ?? [];
    const [former] = top;
    let result = ["no answer"];
    if (best) {
      const label = shownLabel(best.label);
      result = best.index === former.index ? ["still ", label] : [shownLabel(former.label), " has become ", label];
    }
    const time = `. Computed and shown in ${Math.round(milliseconds)} ms.`;
    $("play-note").replaceChildren(...(isTrained ? [HINT] : ["Changed: ", ...result, time]));
  }
}
