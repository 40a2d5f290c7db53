// Draws maps of numbers: colours, arrows, legends.

// Equally spaced colours. In all of them lightness tells values apart, also for colour-blind eyes and in grey print.
const PALETTES = {
  // 0 in the middle, light or dark like the page.
  signed: {
    light: ["#143273", "#306cb2", "#82afd7", "#f4f4f4", "#e99e7a", "#c54c40", "#731028"],
    dark: ["#a9d0f5", "#5b9ad6", "#2f5f94", "#16181d", "#8d4632", "#d97a55", "#ffd0b0"],
  },
  // From 0 up.
  level: {
    light: ["#f6f6f6", "#beddd6", "#7ebdbe", "#4695ad", "#306997", "#2e3c78", "#2a0e4c"],
    dark: ["#16181d", "#23304f", "#2b5a86", "#3287a4", "#52b3ae", "#9edcbf", "#f2fbe6"],
  },
  heat: {
    light: ["#f8f4ec", "#fddc9a", "#fbb258", "#f07f34", "#cc4a2b", "#8d2436", "#45123a"],
    dark: ["#16131a", "#3f1443", "#7b2250", "#b93a45", "#e8662f", "#fba63a", "#fdf0a4"],
  },
  flow: {
    light: ["#f4f6f4", "#c6e2cf", "#8dcbb5", "#55aca4", "#2f8793", "#1f5f7c", "#123a5c"],
    dark: ["#14191b", "#143a4a", "#1a5f74", "#278691", "#4db09f", "#93d5ae", "#eafbd2"],
  },
};
const STEPS = 256;
const tables = new Map();

/** Return the colours of a palette as 256 RGBA values. */
function table(name, theme) {
  const key = `${name} ${theme}`;
  if (!tables.has(key)) {
    const anchors = PALETTES[name][theme].map((hex) => [1, 3, 5].map((at) => parseInt(hex.slice(at, at + 2), 16)));
    const colours = new Uint8ClampedArray(4 * STEPS);
    for (let index = 0; index < STEPS; index++) {
      const position = (index / (STEPS - 1)) * (anchors.length - 1);
      const left = Math.min(Math.floor(position), anchors.length - 2);
      for (let part = 0; part < 3; part++) {
        const [a, b] = [anchors[left][part], anchors[left + 1][part]];
        colours[4 * index + part] = a + (b - a) * (position - left);
      }
      colours[4 * index + 3] = 255;
    }
    tables.set(key, colours);
  }
  return tables.get(key);
}

// The media queries that decide the theme. The maps are drawn anew when these change.
export const [DARK, PRINT] = ["(prefers-color-scheme: dark)", "print"].map((query) => matchMedia(query));

/** Return "light" or "dark", as the page is shown; paper is light. */
export const theme = () => (DARK.matches && !PRINT.matches ? "dark" : "light");

/** Return the colour scale of maps: from 0 to the largest value, or symmetric about 0 where some are negative. */
export function scaleOf(maps, palette) {
  let [low, high] = [0, 0];
  for (const values of maps) {
    for (const value of values) {
      if (value < low && value > -Infinity) low = value;
      if (value > high && value < Infinity) high = value;
    }
  }
  if (low < 0) {
    high = Math.max(high, -low);
    return { low: -high, high, palette: "signed" };
  }
  return { low: 0, high: high || 1, palette };
}

/** Return a canvas with one pixel for each value of a map. */
function mapCanvas(values, height, width, { low, high, palette }) {
  const canvas = new OffscreenCanvas(width, height);
  const context = canvas.getContext("2d");
  const image = context.createImageData(width, height);
  const colours = table(palette, theme());
  const factor = (STEPS - 1) / (high - low);
  for (let point = 0; point < values.length; point++) {
    const value = values[point];
    let index = Math.round((value - low) * factor);
    // NaN is neither larger nor smaller: it is grey.
    if (Number.isNaN(index)) {
      image.data.set([128, 128, 128, 255], 4 * point);
      continue;
    }
    index = Math.min(STEPS - 1, Math.max(0, index));
    for (let part = 0; part < 4; part++) image.data[4 * point + part] = colours[4 * index + part];
  }
  context.putImageData(image, 0, 0);
  return canvas;
}

/** Return a canvas with the pixels that a network saw, grey or RGB. */
export function pixelCanvas({ data, shape: [height, width, channels] }) {
  const canvas = new OffscreenCanvas(width, height);
  const context = canvas.getContext("2d");
  const image = context.createImageData(width, height);
  for (let point = 0; point < height * width; point++) {
    for (let part = 0; part < 3; part++) image.data[4 * point + part] = data[point * channels + (part % channels)];
    image.data[4 * point + 3] = 255;
  }
  context.putImageData(image, 0, 0);
  return canvas;
}

/**
 * Give a canvas the resolution of the screen, and a height of `aspect` times its width and `more` pixels; return its
 * context, in CSS pixels, and its size.
 */
export function prepare(canvas, aspect, more = 0) {
  const width = canvas.clientWidth || 64;
  const height = Math.round(width * aspect) + more;
  const ratio = Math.min(3, devicePixelRatio || 1);
  if (canvas.width !== Math.round(width * ratio) || canvas.height !== Math.round(height * ratio)) {
    canvas.width = Math.round(width * ratio);
    canvas.height = Math.round(height * ratio);
  }
  const context = canvas.getContext("2d");
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  context.imageSmoothingEnabled = false;
  context.clearRect(0, 0, width, height);
  return { context, width, height };
}

/** Draw a map into a rectangle. */
export function drawMap(context, values, [rows, columns], scale, left, top, width, height) {
  context.drawImage(mapCanvas(values, rows, columns, scale), left, top, width, height);
}

/** Return the arrows of a velocity field, at most 16 in a row or column, and the speed of the longest one. */
export function arrowsOf(u, v, [rows, columns]) {
  const stride = Math.max(1, Math.ceil(Math.max(rows, columns) / 16));
  const first = Math.floor(stride / 2);
  const arrows = [];
  for (let row = first; row < rows; row += stride) {
    for (let column = first; column < columns; column += stride) {
      const point = row * columns + column;
      arrows.push({ row, column, u: u[point], v: v[point], speed: Math.hypot(u[point], v[point]) });
    }
  }
  return { stride, arrows, fastest: arrows.reduce((fastest, { speed }) => Math.max(fastest, speed), 0) };
}

/** Draw a velocity field as arrows over a map: right where u > 0, down where v > 0. */
export function drawArrows(context, u, v, [rows, columns], width, height) {
  const { stride, arrows, fastest } = arrowsOf(u, v, [rows, columns]);
  if (!(fastest > 0)) return;
  const [cellX, cellY] = [width / columns, height / rows];
  const longest = 0.95 * stride * Math.min(cellX, cellY);
  // Twice: a dark outline keeps the arrows visible on every colour.
  for (const [colour, extra] of [["rgb(0 0 0 / 65%)", 2.2], ["#fff", 0]]) {
    context.strokeStyle = context.fillStyle = colour;
    context.lineWidth = 1.4 + extra;
    context.lineJoin = context.lineCap = "round";
    for (const arrow of arrows) {
      const size = arrow.speed / fastest;
      if (!(size > 0.04)) continue;
      const [dx, dy] = [(arrow.u / fastest) * longest, (arrow.v / fastest) * longest];
      const [x, y] = [(arrow.column + 0.5) * cellX, (arrow.row + 0.5) * cellY];
      const [tipX, tipY] = [x + dx / 2, y + dy / 2];
      const [angle, head] = [Math.atan2(dy, dx), Math.min(6, 2 + 0.35 * size * longest)];
      context.beginPath();
      context.moveTo(x - dx / 2, y - dy / 2);
      context.lineTo(tipX, tipY);
      for (const side of [-2.6, 2.6]) {
        context.moveTo(tipX, tipY);
        context.lineTo(tipX + head * Math.cos(angle + side), tipY + head * Math.sin(angle + side));
      }
      context.stroke();
    }
  }
}

/** Draw a colour bar with the numbers of its ends, and 0 in the middle of a symmetric one. */
export function drawLegend(context, { low, high, palette }, top, width, ink) {
  const colours = table(palette, theme());
  for (let x = 0; x < width; x++) {
    const index = Math.round((x / (width - 1)) * (STEPS - 1));
    context.fillStyle = `rgb(${colours[4 * index]} ${colours[4 * index + 1]} ${colours[4 * index + 2]})`;
    context.fillRect(x, top, 1.5, 10);
  }
  drawText(context, format(low), "left", 0, top + 14, ink);
  if (low < 0) drawText(context, "0", "center", width / 2, top + 14, ink);
  drawText(context, format(high), "right", width, top + 14, ink);
}

/** Draw a line of text below `top`; `align` says what of it is at `x`. */
export function drawText(context, text, align, x, top, ink) {
  context.fillStyle = ink;
  context.font = "12px system-ui, sans-serif";
  context.textBaseline = "top";
  context.textAlign = align;
  context.fillText(text, x, top);
}

/** Return a number with three digits. */
export function format(value) {
  if (value === null || !Number.isFinite(value)) return "not finite";
  if (value === 0) return "0";
  const size = Math.abs(value);
  return size >= 1000 || size < 0.001 ? value.toExponential(1) : String(Number(value.toPrecision(3)));
}
