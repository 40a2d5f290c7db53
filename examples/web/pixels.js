// Turns a picture into the pixels that the network takes, by the rule of pdeinfer/images/convert.py: the page and
// pdeinfer.Predictor give the same answer.

/**
 * Return the pixels of a picture: a Uint8Array, (height, width, channels). Throw if the browser cannot draw it.
 *
 * @param source what a canvas draws: an ImageBitmap or a video.
 * @param width, height the size of the source.
 * @param spec the `input` of a model's card: height, width, channels and fit.
 */
export function toPixels(source, width, height, spec) {
  const canvas = new OffscreenCanvas(width, height);
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.fillStyle = "#fff"; // under transparent pixels
  context.fillRect(0, 0, width, height);
  context.drawImage(source, 0, 0, width, height);
  const rgba = context.getImageData(0, 0, width, height).data;
  // Beyond the browser's limit a canvas stays empty.
  if (rgba[3] !== 255) throw new RangeError("it is too large for this browser");
  return fit({ data: withChannels(rgba, spec.channels), width, height, channels: spec.channels }, spec);
}

function withChannels(rgba, channels) {
  const data = new Uint8Array((rgba.length / 4) * channels);
  for (let from = 0, to = 0; from < rgba.length; from += 4) {
    const [red, green, blue] = [rgba[from], rgba[from + 1], rgba[from + 2]];
    if (channels === 1) {
      data[to++] = (19595 * red + 38470 * green + 7471 * blue + 0x8000) >> 16; // as Pillow rounds it
    } else {
      data[to++] = red;
      data[to++] = green;
      data[to++] = blue;
    }
  }
  return data;
}

function fit(image, spec) {
  const { width, height } = image;
  if (width === spec.width && height === spec.height) return image.data;
  const isWider = width * spec.height > height * spec.width;
  if (spec.fit === "crop") {
    const cropWidth = isWider ? (height * spec.width) / spec.height : width;
    const cropHeight = isWider ? height : (width * spec.height) / spec.width;
    const [left, top] = [(width - cropWidth) / 2, (height - cropHeight) / 2];
    return resize(image, spec.width, spec.height, [left, top, left + cropWidth, top + cropHeight]);
  }
  const whole = [0, 0, width, height];
  if (spec.fit === "stretch") return resize(image, spec.width, spec.height, whole);
  const newWidth = isWider ? spec.width : Math.max(1, round((width * spec.height) / height));
  const newHeight = isWider ? Math.max(1, round((height * spec.width) / width)) : spec.height;
  const inner = resize(image, newWidth, newHeight, whole);
  const padded = new Uint8Array(spec.width * spec.height * spec.channels);
  const [left, top] = [Math.floor((spec.width - newWidth) / 2), Math.floor((spec.height - newHeight) / 2)];
  const row = newWidth * spec.channels;
  for (let y = 0; y < newHeight; y++) {
    padded.set(inner.subarray(y * row, (y + 1) * row), ((top + y) * spec.width + left) * spec.channels);
  }
  return padded;
}

/** Round halves to the even neighbour, as Python does. */
function round(value) {
  const rounded = Math.round(value);
  return rounded - value === 0.5 && rounded % 2 !== 0 ? rounded - 1 : rounded;
}

/** Resize the part [left, top, right, bottom] of an image, bilinear with antialiasing, bit for bit as Pillow 13. */
function resize(image, newWidth, newHeight, box) {
  const [left, top, right, bottom] = box.map(Math.fround); // Pillow's box has single precision
  const narrow = (input) => ({ ...input, width: newWidth, data: pass(input, "x", newWidth, left, right) });
  const lower = (input) => ({ ...input, height: newHeight, data: pass(input, "y", newHeight, top, bottom) });
  const isTall = image.height - newHeight > Math.max(0, 2 * (image.width - newWidth)); // then Pillow begins with y
  return (isTall ? narrow(lower(image)) : lower(narrow(image))).data;
}

/** Resize along one axis, and round to whole numbers. */
function pass({ data, width, height, channels }, axis, newSize, start, end) {
  const [outer, size, inner] = axis === "x" ? [height, width, channels] : [1, height, width * channels];
  const result = new Uint8Array(outer * newSize * inner);
  const pixels = weights(size, start, end, newSize);
  let to = 0;
  for (let block = 0; block < outer; block++) {
    for (const { first, factors } of pixels) {
      const from = (block * size + first) * inner;
      for (let index = 0; index < inner; index++) result[to++] = blend(data, from + index, inner, factors);
    }
  }
  return result;
}

const BITS = 22; // of the fixed-point factors

/** Return, for each new pixel along an axis, the first pixel that it blends, and their factors. */
function weights(size, start, end, newSize) {
  const scale = Math.fround(end - start) / newSize;
  const support = Math.max(scale, 1);
  return Array.from({ length: newSize }, (_, index) => {
    const center = start + (index + 0.5) * scale;
    const first = Math.max(0, Math.trunc(center - support + 0.5));
    const last = Math.min(size, Math.trunc(center + support + 0.5));
    const triangle = [];
    for (let pixel = first; pixel < last; pixel++) {
      triangle.push(Math.max(0, 1 - Math.abs((pixel - center + 0.5) / support)));
    }
    const total = triangle.reduce((sum, factor) => sum + factor, 0);
    const factors = Int32Array.from(triangle, (factor) => Math.trunc(0.5 + (factor / total) * 2 ** BITS));
    return { first, factors };
  });
}

function blend(data, start, step, factors) {
  let sum = 1 << (BITS - 1);
  for (let index = 0; index < factors.length; index++) sum += data[start + index * step] * factors[index];
  return Math.min(255, sum >> BITS);
}
