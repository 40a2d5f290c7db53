// The large map of a PDE layer: draws it, and says what it shows.

import { arrowsOf, drawArrows, drawLegend, drawMap, drawText, format, pixelCanvas, prepare } from "./maps.js";
import { QUANTITIES, mapOf, scaleOfQuantity } from "./quantities.js";

const BELOW = 36; // pixels below the map, for its legend

/**
 * Draw what the view's state asks for.
 *
 * @param pixels what the network saw: the velocity is drawn over it.
 * @param flow the particles of a velocity that plays, or null.
 * @param point the { row, column } of the pointer, or null.
 */
export function drawStage(canvas, { layer, state, pixels, flow, point }) {
  const [rows, columns] = layer.shape;
  const { context, width } = prepare(canvas, rows / columns, BELOW);
  const height = Math.round((width * rows) / columns);
  const scale = scaleOfQuantity(layer, state.show, shownChannels(layer, state));
  if (isGrid(layer, state)) drawGrid(context, layer, state, scale, width, height);
  else {
    if (state.show === "velocity") drawFaded(context, pixels, width, height);
    else drawMap(context, shownMap(layer, state), layer.shape, scale, 0, 0, width, height);
    if (flow) flow.draw(context, width, height);
    else if (layer.fields.u && (state.arrows || state.show === "velocity")) {
      const [u, v] = ["u", "v"].map((name) => shownMap(layer, state, name));
      drawArrows(context, u, v, layer.shape, width, height);
    }
  }
  if (point && !isGrid(layer, state)) drawPoint(context, point, width / columns, height / rows);
  drawBelow(context, layer, state, flow, scale, width, height + 8);
}

/** Return whether all channels are shown side by side. */
export const isGrid = ({ shape }, { channel }) => channel === "all" && shape[2] > 1;

function shownChannels(layer, state) {
  if (isGrid(layer, state)) return Array.from({ length: layer.shape[2] }, (_, channel) => channel);
  return [state.channel === "all" ? 0 : state.channel];
}

/** Return the map of a quantity for the channel that is shown, if it is one, at the step that is shown. */
function shownMap(layer, state, name = state.show) {
  return mapOf(layer, name, shownChannels(layer, state)[0], state.step);
}

function drawGrid(context, layer, state, scale, width, height) {
  const across = Math.ceil(Math.sqrt(layer.shape[2]));
  const [cellX, cellY] = [width / across, height / across];
  for (const channel of shownChannels(layer, state)) {
    const [left, top] = [(channel % across) * cellX, Math.floor(channel / across) * cellY];
    const values = mapOf(layer, state.show, channel, state.step);
    drawMap(context, values, layer.shape, scale, left + 1, top + 1, cellX - 2, cellY - 2);
  }
}

function drawFaded(context, pixels, width, height) {
  context.globalAlpha = 0.75;
  context.drawImage(pixelCanvas(pixels), 0, 0, width, height);
  context.globalAlpha = 1;
}

function drawPoint(context, { row, column }, cellX, cellY) {
  for (const [colour, thickness] of [["#fff", 3], ["#000", 1]]) {
    context.strokeStyle = colour;
    context.lineWidth = thickness;
    context.strokeRect(column * cellX, row * cellY, cellX, cellY);
  }
}

/** Draw the scale and the caption. */
function drawBelow(context, layer, state, flow, scale, width, top) {
  const ink = getComputedStyle(context.canvas).color;
  const title = caption(layer, state);
  const hasArrows = state.show === "velocity" && !isGrid(layer, state);
  if (!hasArrows || width > 380) drawText(context, title, "right", width, top, ink); // it sets the font
  if (hasArrows) drawText(context, speedText(layer, state, flow, scale), "left", 0, top, ink);
  else drawLegend(context, scale, top, Math.min(220, width - context.measureText(title).width - 12), ink);
}

/** Return what the length of the arrows means, or the largest speed where there are none. */
function speedText(layer, state, flow, scale) {
  if (shownMap(layer, state).every((speed) => speed === 0)) return "no velocity in this channel";
  const [u, v] = ["u", "v"].map((name) => shownMap(layer, state, name));
  const { fastest } = arrowsOf(u, v, layer.shape); // there may be faster points between the arrows
  const text = !flow && fastest > 0 ? `longest arrow: ${format(fastest)}` : `fastest: ${format(scale.high)}`;
  return `${text} points per unit of time`;
}

function caption({ shape }, { show, step, channel }) {
  const name = show === "H" ? `H[${step}]` : show === "change" ? `H[${step}] − H[0]` : QUANTITIES[show].short;
  if (shape[2] === 1) return name;
  return `${name}, ${channel === "all" ? "all channels" : channel === "mean" ? "mean" : `channel ${channel}`}`;
}

/** Return what the map shows, for those who do not see it. */
export function stageLabel(layer, state) {
  const [rows, columns] = layer.shape;
  const what = `${QUANTITIES[state.show].title}: ${caption(layer, state)}`;
  const keys = isGrid(layer, state) ? "" : " Arrow keys move the pointer.";
  return `${what} of ${layer.name}, ${rows} x ${columns} points.${keys}`;
}

/** Return the values under the pointer. */
export function readoutText(layer, state, point) {
  if (isGrid(layer, state)) return "One scale for all channels.";
  if (!point) return "Point at the map, or move with the arrow keys, to read values.";
  const value = (name) => format(shownMap(layer, state, name)[point.row * layer.shape[1] + point.column]);
  const fields = ["u", "v", "Dx", "Dy", "f"].filter((name) => layer.fields[name]);
  const parts = [`H[${state.step}] ${value("H")}`, ...fields.map((name) => `${name} ${value(name)}`)];
  return `x ${point.column}, y ${point.row}: ${parts.join(" · ")}`;
}
