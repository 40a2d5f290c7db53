// The PDE layers at work: maps of every field and step, by channel, with the value under the pointer.

import { Controls } from "./controls.js";
import { h } from "./dom.js";
import { Flow } from "./flow.js";
import { DARK, PRINT, drawMap, prepare, theme } from "./maps.js";
import { QUANTITIES, hasQuantity, liveliestChannel, mapOf, scaleOfQuantity } from "./quantities.js";
import { drawStage, isGrid, readoutText, stageLabel } from "./stage.js";

const FRAME = 450; // milliseconds of a step while playing

/**
 * Shows the PDE layers of one inspection. It fires "change" when the reader chooses something else to see.
 *
 * `state` is { layer, show, channel, step, arrows }: layer counts from 1; channel is a number, "mean" or "all", or null
 * for the one in which the most happens; step is a number, or null for the last one.
 */
export class PdeView extends EventTarget {
  state = { layer: 1, show: "H", channel: null, step: null, arrows: false };
  inspection = null;
  #root;
  #controls;
  #point = null; // under the pointer
  #timer = null; // while the steps play
  #flow = null; // while the velocity plays

  constructor(root) {
    super();
    this.#root = root;
    this.#controls = new Controls(root, (change) => this.set(change));
    const { stage, step, play, save } = this.#controls;
    step.addEventListener("input", () => this.pause());
    play.addEventListener("click", () => (this.#isPlaying ? this.pause() : this.#play()));
    save.addEventListener("click", () => this.#save());
    stage.addEventListener("pointermove", (event) => this.#pointAt(event));
    stage.addEventListener("pointerleave", () => this.#setPoint(null));
    stage.addEventListener("keydown", (event) => this.#movePoint(event));
    addEventListener("resize", () => this.draw());
    for (const media of [DARK, PRINT]) media.addEventListener("change", () => this.draw());
  }

  // --- state ---------------------------------------------------------------------------------------------------------

  /** Show another inspection, as `decode` returns it. */
  setInspection(inspection) {
    if (this.layer && this.state.step === this.layer.numLevels - 1) this.state.step = null; // stays at the last one
    this.inspection = inspection;
    const layer = Math.min(this.state.layer, inspection.layers.length);
    this.#controls.showLayers(inspection.layers, layer);
    this.set({ layer });
  }

  /** Forget the inspection, and show the next one in a state. */
  reset(state) {
    this.pause();
    this.inspection = null;
    Object.assign(this.state, state);
  }

  /** Change what is shown, or draw it anew. */
  set(change) {
    if (this.#flow) this.pause();
    Object.assign(this.state, change);
    if (this.layer) {
      this.#makePossible();
      this.#controls.showState(this.layer, this.state);
    }
    this.dispatchEvent(new CustomEvent("change", { detail: change }));
    this.draw();
  }

  /** The layer that is shown, or null while its arrays have not come. */
  get layer() {
    const layer = this.inspection?.layers[this.state.layer - 1];
    return layer?.levels ? layer : null;
  }

  /** Replace what the layer does not have, and what is null. */
  #makePossible() {
    const { state, layer } = this;
    const last = layer.numLevels - 1;
    if (!hasQuantity(layer, state.show)) state.show = "H";
    state.channel ??= liveliestChannel(layer);
    if (typeof state.channel === "number") state.channel = Math.min(state.channel, layer.shape[2] - 1);
    state.step = Math.min(state.step ?? last, last);
  }

  // --- drawing -------------------------------------------------------------------------------------------------------

  /** Draw everything again. */
  draw() {
    this.#root.classList.toggle("waiting", !this.layer);
    if (!this.layer || !this.#controls.stage.isConnected) return;
    this.#drawStage();
    this.#drawThumbnails();
    this.#describe();
  }

  #drawStage() {
    const { layer, state } = this;
    const [flow, point] = [this.#flow, this.#point];
    drawStage(this.#controls.stage, { layer, state, pixels: this.inspection.pixels, flow, point });
  }

  #drawThumbnails() {
    const { layer, state } = this;
    const channel = state.channel === "all" ? "mean" : state.channel;
    for (const [name, canvas] of this.#controls.thumbnails) {
      const { context, width, height } = prepare(canvas, layer.shape[0] / layer.shape[1]);
      const values = mapOf(layer, name, channel, state.step);
      drawMap(context, values, layer.shape, scaleOfQuantity(layer, name, [channel]), 0, 0, width, height);
    }
  }

  #describe() {
    const { stage, readout } = this.#controls;
    stage.setAttribute("aria-label", stageLabel(this.layer, this.state));
    readout.textContent = readoutText(this.layer, this.state, this.#point);
  }

  // --- the pointer ---------------------------------------------------------------------------------------------------

  #pointAt(event) {
    if (!this.layer || isGrid(this.layer, this.state)) return;
    const [rows, columns] = this.layer.shape;
    const box = this.#controls.stage.getBoundingClientRect();
    const column = Math.floor(((event.clientX - box.left) / box.width) * columns);
    const row = Math.floor(((event.clientY - box.top) / ((box.width * rows) / columns)) * rows);
    this.#setPoint(row < rows && row >= 0 && column >= 0 && column < columns ? { row, column } : null);
  }

  #movePoint(event) {
    const move = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] }[event.key];
    if (!move || !this.layer || isGrid(this.layer, this.state)) return;
    event.preventDefault();
    const [rows, columns] = this.layer.shape;
    const { row, column } = this.#point ?? { row: Math.floor(rows / 2), column: Math.floor(columns / 2) };
    this.#setPoint({ row: (row + move[0] + rows) % rows, column: (column + move[1] + columns) % columns });
  }

  #setPoint(point) {
    if (this.#point?.row === point?.row && this.#point?.column === point?.column) return;
    this.#point = point;
    if (!this.layer) return;
    this.#drawStage();
    this.#describe();
  }

  // --- the animation -------------------------------------------------------------------------------------------------

  get #isPlaying() {
    return this.#timer !== null || this.#flow !== null;
  }

  #play() {
    if (!this.layer) return;
    if (this.state.show === "velocity" && this.state.channel !== "all") this.#playVelocity();
    else this.#playSteps();
    this.#controls.setPlaying(true);
  }

  #playSteps() {
    if (!QUANTITIES[this.state.show].changes) this.set({ show: "H" });
    const advance = () => this.layer && this.set({ step: (this.state.step + 1) % this.layer.numLevels });
    advance();
    this.#timer = setInterval(advance, FRAME);
  }

  #playVelocity() {
    const [u, v] = ["u", "v"].map((name) => mapOf(this.layer, name, this.state.channel, this.state.step));
    const flow = new Flow(u, v, this.layer.shape);
    const advance = () => {
      if (this.#flow !== flow) return;
      flow.advance();
      this.#drawStage();
      requestAnimationFrame(advance);
    };
    this.#flow = flow;
    advance();
  }

  /** Stop the animation. */
  pause() {
    clearInterval(this.#timer);
    const hadFlow = this.#flow !== null;
    this.#timer = this.#flow = null;
    this.#controls.setPlaying(false);
    if (hadFlow) this.draw();
  }

  // --- the picture ---------------------------------------------------------------------------------------------------

  /** Let the browser save the large map as a PNG file. */
  #save() {
    if (!this.layer) return;
    const { stage } = this.#controls;
    const picture = new OffscreenCanvas(stage.width + 32, stage.height + 32);
    const context = picture.getContext("2d");
    context.fillStyle = theme() === "dark" ? "#191c22" : "#fff";
    context.fillRect(0, 0, picture.width, picture.height);
    context.drawImage(stage, 16, 16);
    picture.convertToBlob().then((blob) => {
      const link = h("a", { href: URL.createObjectURL(blob), download: this.#fileName() });
      link.click();
      setTimeout(() => URL.revokeObjectURL(link.href), 1000);
    });
  }

  #fileName() {
    const { layer, show, channel, step } = this.state;
    const end = QUANTITIES[show].changes ? `-step${step}` : "";
    return `${this.inspection.model}-layer${layer}-${show}-${channel}${end}.png`;
  }
}
