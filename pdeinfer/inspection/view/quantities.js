// What can be shown of a PDE layer: the maps of its quantities, by channel and step, and their colour scales.

import { scaleOf } from "./maps.js";

// `palette` is that of maps without negative values; `changes`: from step to step; `field`: not every layer has it.
export const QUANTITIES = {
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

/** Return whether a layer has a quantity of this name. */
export function hasQuantity({ fields }, name) {
  if (name === "velocity") return fields.u !== null;
  return Object.hasOwn(QUANTITIES, name) && (!QUANTITIES[name].field || fields[name] !== null);
}

/** Return the map of a quantity for a channel, or for the mean of all, at a step. */
export function mapOf(layer, name, channel, step) {
  const { levels, fields, stable, shape } = layer;
  if (name === "H") return plane(levels, shape, channel, step);
  if (name === "change") {
    const [now, before] = [plane(levels, shape, channel, step), plane(levels, shape, channel, 0)];
    return now.map((value, point) => value - before[point]);
  }
  if (name === "velocity") {
    const v = plane(fields.v, shape, channel);
    return plane(fields.u, shape, channel).map((value, point) => Math.hypot(value, v[point]));
  }
  if (name === "stable") return plane(stable, shape, channel).map((value) => 1 - value);
  return plane(fields[name], shape, channel);
}

/** Return the colour scale of a quantity: one for all steps and for all of these channels. */
export function scaleOfQuantity(layer, name, channels) {
  const { palette, changes } = QUANTITIES[name];
  const steps = Array.from({ length: changes ? layer.numLevels : 1 }, (_, step) => step);
  const scale = scaleOf(channels.flatMap((channel) => steps.map((step) => mapOf(layer, name, channel, step))), palette);
  return name === "stable" ? { ...scale, high: 1 } : scale;
}

/** Return the channel that the equation changes the most from place to place, preferring those with a velocity. */
export function liveliestChannel({ levels, fields, shape, numLevels }) {
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

/**
 * Return the values of one channel, or their mean over the channels ("mean").
 * `array` is (..., height, width, channels); `index` counts its leading axis.
 */
function plane(array, [height, width, channels], channel, index = 0) {
  const size = height * width;
  const values = new Float32Array(size);
  const start = index * size * channels;
  for (let point = 0; point < size; point++) {
    const at = start + point * channels;
    if (channel === "mean") {
      let sum = 0;
      for (let c = 0; c < channels; c++) sum += array[at + c];
      values[point] = sum / channels;
    } else {
      values[point] = array[at + channel];
    }
  }
  return values;
}
