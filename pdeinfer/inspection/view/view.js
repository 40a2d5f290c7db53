// The PDE layers at work: maps of every field and step, by channel, with the value under the pointer.

import { extent, h } from "./answer.js";
import { Flow } from "./flow.js";
import { drawArrows, drawLegend, drawMap, format, pixelCanvas, plane, prepare, scaleOf, theme } from "./maps.js";

// What can be shown. `palette` is that of maps without negative values.
const QUANTITIES = {
  H: { title: "H, the feature map", short: "H", palette: "level", changes: true },
  change: { title: "H[k] − H[0], what the equation has done", short: "H − H[0]", palette: "level", changes: true },
  velocity: { title: "Velocity (u, v) over the picture", short: "velocity", palette: "flow" },
  u: { title: "u, velocity to the right", short: "u", palette: "flow", field: true },
  v: { title: "v, velocity down", short: "v", palette: "flow", field: true },
  Dx: { title: "Dx, diffusivity along the rows", short: "Dx", palette: "heat", field: true },
  Dy: { title: "Dy, diffusivity along the columns", short: "Dy", palette: "heat", field: true },
  f: { title: "f, the source", short: "f", palette: "level", field: true },
  stable: { title: "Points outside the stable range", short: "unstable", palette: "heat" },
};
const FRAME = 450; // milliseconds of a step while playing
const LEGEND = 36; // pixels below a map

/**
 * Shows the PDE layers of one inspection. It fires "change" when the reader chooses something else to see.
 *
 * `state` is { layer, show, channel, step, arrows }: layer counts from 1; channel is a number, "mean" or "all", or null
 * for the one in which the most happens; step is a number, or null for the last one.
 */
export class PdeView extends EventTarget {
  constructor(root) {
    super();
    this.state = { layer: 1, show: "H", channel: null, step: null, arrows: false };
    this.point = null;
    this.playing = null;
    this.flow = null; // while the velocity plays
    this.#build(root);
    addEventListener("resize", () => this.draw());
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.draw());
  }

  #build(root) {
    this.layers = h("div", { className: "segments", role: "radiogroup", "aria-label": "PDE layer" });
    this.thumbnails = h("div", { className: "thumbnails", role: "radiogroup", "aria-label": "What to show" });
    this.stage = h("canvas", { className: "stage", tabIndex: 0, role: "img" });
    this.stage.setAttribute("aria-describedby", "readout");
    this.readout = h("p", { id: "readout", className: "readout", role: "status" });
    this.channel = h("input", { type: "range", id: "channel", min: 0, step: 1 });
    this.channelText = h("output", { htmlFor: "channel" });
    this.channels = h("div", { className: "segments", role: "radiogroup", "aria-label": "Channels" });
    this.step = h("input", { type: "range", id: "step", min: 0, step: 1 });
    this.stepText = h("output", { htmlFor: "step" });
    this.play = h("button", { type: "button", id: "play", className: "round" });
    this.arrows = h("input", { type: "checkbox", id: "arrows" });
    this.save = h("button", { type: "button", id: "save" }, "Save PNG");
    this.numbers = h("dl", { className: "numbers" });
    root.append(
      this.layers,
      h(
        "div",
        { className: "workbench" },
        h(
          "div",
          { className: "scene" },
          this.stage,
          h(
            "div",
            { className: "transport" },
            this.play,
            h("label", { htmlFor: "step" }, "step"),
            this.step,
            this.stepText,
          ),
          this.readout,
        ),
        h(
          "div",
          { className: "choices" },
          this.thumbnails,
          h(
            "div",
            { className: "field" },
            this.channels,
            h(
              "div",
              { className: "transport" },
              h("label", { htmlFor: "channel" }, "channel"),
              this.channel,
              this.channelText,
            ),
          ),
          h(
            "div",
            { className: "row" },
            h("label", { className: "check" }, this.arrows, " velocity as arrows"),
            this.save,
          ),
          this.numbers,
        ),
      ),
    );
    this.step.addEventListener("input", () => {
      this.pause();
      this.set({ step: Number(this.step.value) });
    });
    this.channel.addEventListener("input", () => this.set({ channel: Number(this.channel.value) }));
    this.arrows.addEventListener("change", () => this.set({ arrows: this.arrows.checked }));
    this.play.addEventListener("click", () => (this.playing === null ? this.#start() : this.pause()));
    this.save.addEventListener("click", () => this.#save());
    this.stage.addEventListener("pointermove", (event) => this.#pointAt(event));
    this.stage.addEventListener("pointerleave", () => this.#setPoint(null));
    this.stage.addEventListener("keydown", (event) => this.#key(event));
    this.#setPlaying(null);
  }

  /** Show another inspection, as `decode` returns it. */
  setInspection(inspection) {
    if (this.layer && this.state.step === this.layer.numLevels - 1) this.state.step = null; // stays at the last one
    this.inspection = inspection;
    const count = inspection.layers.length;
    const layer = Math.min(this.state.layer, count);
    const options = inspection.layers.map(({ name, shape }, index) => [index + 1, name, ` · ${shape.join("×")}`]);
    this.#segments(this.layers, options, layer, (value) => this.set({ layer: value, step: null }));
    this.layers.hidden = count < 2;
    this.set({ layer });
  }

  /** Forget the inspection, and show the next one in a state. */
  reset(state) {
    this.pause();
    this.inspection = undefined;
    Object.assign(this.state, state);
  }

  /** Change what is shown, or draw it anew. */
  set(change) {
    if (this.flow) this.pause();
    Object.assign(this.state, change);
    this.#adjust();
    this.dispatchEvent(new CustomEvent("change", { detail: change }));
    this.draw();
  }

  /** The layer that is shown, or undefined while its arrays have not come. */
  get layer() {
    const layer = this.inspection?.layers[this.state.layer - 1];
    return layer?.levels ? layer : undefined;
  }

  /** Make the controls match the state and the state possible. */
  #adjust() {
    const { state, layer } = this;
    if (!layer) return;
    const channels = layer.shape[2];
    const last = layer.numLevels - 1;
    if (!this.#has(state.show)) state.show = "H";
    state.channel ??= this.#liveliest();
    if (typeof state.channel === "number") state.channel = Math.min(state.channel, channels - 1);
    state.step = state.step === null ? last : Math.min(state.step, last);
    this.channel.max = channels - 1;
    this.channel.value = typeof state.channel === "number" ? state.channel : 0;
    this.channel.disabled = typeof state.channel !== "number";
    this.channelText.value = typeof state.channel === "number" ? `${state.channel} / ${channels - 1}` : state.channel;
    this.#segments(
      this.channels,
      [["one", "one channel"], ["mean", "mean"], ["all", "all channels"]],
      typeof state.channel === "number" ? "one" : state.channel,
      (value) => this.set({ channel: value === "one" ? Number(this.channel.value) : value }),
    );
    this.channels.parentElement.hidden = channels === 1;
    this.step.max = last;
    this.step.value = state.step;
    this.stepText.value = `${state.step} / ${last}`;
    this.step.setAttribute("aria-valuetext", `step ${state.step} of ${last}`);
    this.arrows.checked = state.arrows || state.show === "velocity";
    this.arrows.disabled = !layer.fields.u || state.show === "velocity" || state.channel === "all";
    this.#adjustThumbnails();
    this.#adjustNumbers();
  }

  /** Return the channel that the equation changes the most from place to place, preferring those with a velocity. */
  #liveliest() {
    const { levels, fields, shape, numLevels } = this.layer;
    const channels = Array.from({ length: shape[2] }, (_, channel) => channel);
    const variance = (values) => {
      const mean = values.reduce((sum, value) => sum + value, 0) / values.length;
      return values.reduce((sum, value) => sum + (value - mean) ** 2, 0);
    };
    const liveliness = channels.map((channel) => {
      const [before, after] = [plane(levels, shape, channel), plane(levels, shape, channel, numLevels - 1)];
      const velocity = fields.u ? [fields.u, fields.v].map((field) => variance(plane(field, shape, channel))) : [0, 0];
      const moves = velocity[0] + velocity[1] > 0;
      return variance(after.map((value, point) => value - before[point])) * (moves ? 1000 : 1);
    });
    return Math.max(0, liveliness.indexOf(Math.max(...liveliness)));
  }

  #has(show) {
    const { fields } = this.layer;
    if (show === "velocity") return fields.u !== null;
    return Object.hasOwn(QUANTITIES, show) && (!QUANTITIES[show].field || fields[show] !== null);
  }

  #segments(group, options, chosen, choose) {
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

  #adjustThumbnails() {
    const names = Object.keys(QUANTITIES).filter((name) => this.#has(name));
    if (this.thumbnails.dataset.names !== names.join()) {
      this.thumbnails.dataset.names = names.join();
      this.thumbnails.replaceChildren(
        ...names.map((name) => {
          const input = h("input", { type: "radio", name: "show", value: name });
          input.addEventListener("change", () => this.set({ show: name }));
          const { title, short } = QUANTITIES[name];
          return h("label", { title }, input, h("canvas", { "aria-hidden": "true" }), h("span", {}, short));
        }),
      );
    }
    for (const input of this.thumbnails.querySelectorAll("input")) input.checked = input.value === this.state.show;
  }

  #adjustNumbers() {
    const { layer } = this;
    const percent = 100 * layer.unstable;
    const share = percent > 0 && percent < 0.1 ? "less than 0.1 %" : `${percent.toFixed(1)} %`;
    const rows = [
      ["Courant numbers |Ax| + |Ay|", layer.fields.u ? extent(layer.courant) : "no advection"],
      ["Diffusion numbers Bx + By", layer.fields.Dx ? extent(layer.diffusion) : "no diffusion"],
      ["Points outside the stable range", share],
    ];
    this.numbers.replaceChildren(...rows.flatMap(([term, text]) => [h("dt", {}, term), h("dd", {}, text)]));
  }

  /** Return the map of a quantity at a step, for a channel or the mean. */
  #values(show, channel, step = this.state.step) {
    const { levels, fields, stable, shape } = this.layer;
    if (show === "H") return plane(levels, shape, channel, step);
    if (show === "change") {
      const [now, before] = [plane(levels, shape, channel, step), plane(levels, shape, channel, 0)];
      return now.map((value, point) => value - before[point]);
    }
    if (show === "velocity") {
      const v = plane(fields.v, shape, channel);
      return plane(fields.u, shape, channel).map((value, point) => Math.hypot(value, v[point]));
    }
    if (show === "stable") return plane(stable, shape, channel).map((value) => 1 - value);
    return plane(fields[show], shape, channel);
  }

  /** Return the colour scale of a quantity: the same for all steps and, where they are all shown, for all channels. */
  #scale(show, channels) {
    const last = this.layer.numLevels - 1;
    const steps = QUANTITIES[show].changes ? Array.from({ length: last + 1 }, (_, step) => step) : [0];
    const maps = channels.flatMap((channel) => steps.map((step) => this.#values(show, channel, step)));
    const scale = scaleOf(maps, QUANTITIES[show].palette);
    return show === "stable" ? { ...scale, high: 1 } : scale;
  }

  /** Draw everything again. */
  draw() {
    if (!this.layer || !this.stage.isConnected) return;
    this.#drawStage();
    this.#drawThumbnails();
    this.#describe();
  }

  #drawStage() {
    const { layer, stage, state } = this;
    const [rows, columns, channels] = layer.shape;
    const ink = getComputedStyle(stage).color;
    const { context, width } = prepare(stage, rows / columns, LEGEND);
    const tall = Math.round((width * rows) / columns);
    const isGrid = state.channel === "all" && channels > 1;
    const one = state.channel === "all" ? 0 : state.channel;
    const shown = isGrid ? Array.from({ length: channels }, (_, index) => index) : [one];
    const scale = this.#scale(state.show, shown);
    if (isGrid) {
      const across = Math.ceil(Math.sqrt(channels));
      const [cellX, cellY] = [width / across, tall / across];
      shown.forEach((channel, index) => {
        const [left, top] = [(index % across) * cellX, Math.floor(index / across) * cellY];
        const values = this.#values(state.show, channel);
        drawMap(context, values, [rows, columns], scale, left + 1, top + 1, cellX - 2, cellY - 2);
      });
    } else if (state.show === "velocity") {
      context.globalAlpha = 0.75;
      context.drawImage(pixelCanvas(this.inspection.pixels), 0, 0, width, tall);
      context.globalAlpha = 1;
    } else {
      drawMap(context, this.#values(state.show, shown[0]), [rows, columns], scale, 0, 0, width, tall);
    }
    if (this.flow) this.flow.draw(context, width, tall);
    else if (!isGrid && layer.fields.u && (state.arrows || state.show === "velocity")) {
      drawArrows(context, this.#values("u", shown[0]), this.#values("v", shown[0]), [rows, columns], 0, 0, width, tall);
    }
    if (this.point) {
      const [cellX, cellY] = [width / columns, tall / rows];
      context.strokeStyle = "#fff";
      context.lineWidth = 3;
      context.strokeRect(this.point.column * cellX, this.point.row * cellY, cellX, cellY);
      context.strokeStyle = "#000";
      context.lineWidth = 1;
      context.strokeRect(this.point.column * cellX, this.point.row * cellY, cellX, cellY);
    }
    const bar = Math.min(220, width * 0.6);
    if (state.show !== "velocity" || isGrid) drawLegend(context, scale, 0, tall + 8, bar, ink);
    else {
      context.fillStyle = ink;
      context.font = "12px system-ui, sans-serif";
      context.textBaseline = "top";
      context.textAlign = "left";
      const isStill = this.#values("velocity", one).every((speed) => speed === 0);
      const length = `longest arrow: ${format(scale.high)} pixels per unit of time`;
      context.fillText(isStill ? "no velocity in this channel" : length, 0, tall + 8);
    }
    context.fillStyle = ink;
    context.font = "12px system-ui, sans-serif";
    context.textBaseline = "top";
    context.textAlign = "right";
    if (state.show !== "velocity" || width > 380) context.fillText(this.#caption(), width, tall + 8);
  }

  #caption() {
    const { show, step, channel } = this.state;
    const name = show === "H" ? `H[${step}]` : show === "change" ? `H[${step}] − H[0]` : QUANTITIES[show].short;
    if (this.layer.shape[2] === 1) return name;
    return `${name}, ${channel === "all" ? "all channels" : channel === "mean" ? "mean" : `channel ${channel}`}`;
  }

  #drawThumbnails() {
    const [rows, columns] = this.layer.shape;
    const channel = this.state.channel === "all" ? "mean" : this.state.channel;
    for (const label of this.thumbnails.children) {
      const show = label.firstChild.value;
      const { context, width, height } = prepare(label.querySelector("canvas"), rows / columns);
      drawMap(context, this.#values(show, channel), [rows, columns], this.#scale(show, [channel]), 0, 0, width, height);
    }
  }

  #describe() {
    const { state, layer, point } = this;
    const [rows, columns, channels] = layer.shape;
    const isGrid = state.channel === "all" && channels > 1;
    const what = `${QUANTITIES[state.show].title}: ${this.#caption()} of ${layer.name}, ${rows} x ${columns} points`;
    this.stage.setAttribute("aria-label", `${what}. Arrow keys move the pointer.`);
    if (!point || isGrid) {
      const hint = "Point at the map, or move with the arrow keys, to read values.";
      this.readout.textContent = isGrid ? "One scale for all channels." : hint;
      return;
    }
    const channel = state.channel === "all" ? 0 : state.channel;
    const at = point.row * columns + point.column;
    const parts = [`H[${state.step}] ${format(this.#values("H", channel)[at])}`];
    for (const name of ["u", "v", "Dx", "Dy", "f"]) {
      if (layer.fields[name]) parts.push(`${name} ${format(this.#values(name, channel)[at])}`);
    }
    this.readout.textContent = `x ${point.column}, y ${point.row}: ${parts.join(" · ")}`;
  }

  #pointAt(event) {
    if (!this.layer || this.state.channel === "all") return;
    const [rows, columns] = this.layer.shape;
    const box = this.stage.getBoundingClientRect();
    const column = Math.floor(((event.clientX - box.left) / box.width) * columns);
    const row = Math.floor(((event.clientY - box.top) / ((box.width * rows) / columns)) * rows);
    this.#setPoint(row < rows && row >= 0 && column >= 0 && column < columns ? { row, column } : null);
  }

  #key(event) {
    const move = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] }[event.key];
    if (!move || !this.layer) return;
    event.preventDefault();
    const [rows, columns] = this.layer.shape;
    const { row, column } = this.point ?? { row: Math.floor(rows / 2), column: Math.floor(columns / 2) };
    this.#setPoint({ row: (row + move[0] + rows) % rows, column: (column + move[1] + columns) % columns });
  }

  #setPoint(point) {
    if (this.point?.row === point?.row && this.point?.column === point?.column) return;
    this.point = point;
    if (!this.layer) return;
    this.#drawStage();
    this.#describe();
  }

  #start() {
    if (!this.layer) return;
    if (this.state.show === "velocity" && this.state.channel !== "all") {
      this.#startFlow();
      return;
    }
    if (!QUANTITIES[this.state.show].changes) this.set({ show: "H" });
    const advance = () => this.layer && this.set({ step: (this.state.step + 1) % this.layer.numLevels });
    advance();
    this.#setPlaying(setInterval(advance, FRAME));
  }

  #startFlow() {
    const [u, v] = ["u", "v"].map((name) => this.#values(name, this.state.channel));
    const flow = new Flow(u, v, this.layer.shape);
    const advance = () => {
      if (this.flow !== flow) return;
      flow.advance();
      this.#drawStage();
      requestAnimationFrame(advance);
    };
    this.flow = flow;
    this.#setPlaying(0);
    advance();
  }

  /** Stop the animation. */
  pause() {
    clearInterval(this.playing);
    const hadFlow = this.flow !== null;
    this.flow = null;
    this.#setPlaying(null);
    if (hadFlow) this.draw();
  }

  #setPlaying(playing) {
    this.playing = playing;
    this.play.textContent = playing === null ? "▶" : "❚❚";
    this.play.setAttribute("aria-label", playing === null ? "Play" : "Pause");
  }

  #save() {
    if (!this.layer) return;
    const picture = new OffscreenCanvas(this.stage.width + 32, this.stage.height + 32);
    const context = picture.getContext("2d");
    context.fillStyle = theme() === "dark" ? "#191c22" : "#fff";
    context.fillRect(0, 0, picture.width, picture.height);
    context.drawImage(this.stage, 16, 16);
    picture.convertToBlob().then((blob) => {
      const link = h("a", { href: URL.createObjectURL(blob), download: this.#fileName() });
      link.click();
      setTimeout(() => URL.revokeObjectURL(link.href), 1000);
    });
  }

  #fileName() {
    const { layer, show, channel, step } = this.state;
    return `${this.inspection.model}-layer${layer}-${show}-${channel}${QUANTITIES[show].changes ? `-step${step}` : ""}.png`;
  }
}
