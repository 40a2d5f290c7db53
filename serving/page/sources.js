// Pictures from files, from the camera and from a drawing.

import { $ } from "./dom.js";
import { Problem } from "./server.js";

const TROUBLE = {
  NotAllowedError: "The camera was not allowed.",
  NotFoundError: "No camera was found.",
  NotReadableError: "The camera does not start. Another program may be using it.",
};

/** Let the reader choose files, drop them anywhere or paste them; `take` gets a list of them. */
export function setUpFiles(input, zone, take, say) {
  // A copy of each list: the browser's own is empty after the event.
  input.addEventListener("change", () => {
    if (input.files.length) take([...input.files]);
    input.value = ""; // the same file can be chosen again
  });
  for (const type of ["dragover", "drop", "dragleave"]) {
    addEventListener(type, (event) => {
      event.preventDefault();
      zone.classList.toggle("over", type === "dragover");
      if (type !== "drop") return;
      const { files } = event.dataTransfer;
      if (files.length) take([...files]);
      else say("Drop a picture file here; that was something else.");
    });
  }
  addEventListener("paste", (event) => {
    const { files } = event.clipboardData;
    if (files.length) take([...files]);
    else if (event.target !== $("key")) say("The clipboard holds no picture.");
  });
}

/** Return a copy of a file: other models may be asked about it after it was moved or deleted. */
export async function copy(file) {
  const content = await file.arrayBuffer().catch(() => {
    throw new Problem("This file cannot be read: it is a folder, it was moved, or it is too large.");
  });
  return new Blob([content], { type: file.type });
}

/** Let a button open the camera's dialog; `take` gets a list of one file. */
export function setUpCamera(button, dialog, take, say) {
  const [video, shoot] = [$("video"), $("shoot")];
  let stream = null;
  let isOpening = false; // the reader may still be asked
  const stop = () => {
    stream?.getTracks().forEach((track) => track.stop());
    stream = video.srcObject = null;
    shoot.disabled = true;
  };
  button.addEventListener("click", async () => {
    if (!navigator.mediaDevices) {
      say("The browser gives the camera to pages over HTTPS or on this machine only.");
      return;
    }
    if (isOpening) return;
    isOpening = true;
    stop();
    try {
      stream = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "environment" } });
    } catch (error) {
      say(TROUBLE[error.name] ?? `The camera cannot be used (${error.name}).`);
      return;
    } finally {
      isOpening = false;
    }
    say("");
    dialog.showModal();
    video.srcObject = stream; // plays by itself
  });
  video.addEventListener("loadeddata", () => (shoot.disabled = false));
  $("camera-close").addEventListener("click", () => dialog.close());
  dialog.addEventListener("close", stop);
  shoot.addEventListener("click", async () => {
    const canvas = new OffscreenCanvas(video.videoWidth, video.videoHeight);
    canvas.getContext("2d").drawImage(video, 0, 0);
    dialog.close();
    const blob = await canvas.convertToBlob({ type: "image/jpeg", quality: 0.92 });
    take([new File([blob], "camera.jpg", { type: blob.type })]);
  });
}

/** Let a button open the drawing's dialog; `dataset` returns that of the model, whose digits are framed alike. */
export function setUpDrawing(button, dialog, dataset, take) {
  const pad = $("pad");
  const context = pad.getContext("2d", { willReadFrequently: true });
  let last = null;
  const wipe = () => {
    context.fillStyle = "#000";
    context.fillRect(0, 0, pad.width, pad.height);
  };
  const place = (event) => {
    const { left, top, width, height } = pad.getBoundingClientRect();
    return [((event.clientX - left) / width) * pad.width, ((event.clientY - top) / height) * pad.height];
  };
  const stroke = (event) => {
    const point = place(event);
    context.strokeStyle = "#fff";
    context.lineWidth = 32;
    context.lineCap = context.lineJoin = "round";
    context.beginPath();
    context.moveTo(...(last ?? point));
    context.lineTo(...point);
    context.stroke();
    last = point;
  };
  button.addEventListener("click", () => {
    wipe();
    dialog.showModal();
  });
  pad.addEventListener("pointerdown", (event) => {
    pad.setPointerCapture(event.pointerId);
    last = null;
    stroke(event);
  });
  pad.addEventListener("pointermove", (event) => event.buttons && stroke(event));
  $("wipe").addEventListener("click", wipe);
  $("draw-close").addEventListener("click", () => dialog.close());
  $("drawn").addEventListener("click", async () => {
    const blob = await framed(pad, context, dataset() === "mnist" ? 0.2 : 0.08);
    dialog.close();
    take([new File([blob], "drawing.png", { type: blob.type })]);
  });
}

/** Return a square picture of what was drawn, as the data sets frame their digits. */
function framed(pad, context, margin) {
  const { width, height } = pad;
  const { data } = context.getImageData(0, 0, width, height);
  let [left, top, right, bottom] = [width, height, -1, -1];
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      if (data[4 * (y * width + x)] > 60) {
        [left, right] = [Math.min(left, x), Math.max(right, x)];
        [top, bottom] = [Math.min(top, y), Math.max(bottom, y)];
      }
    }
  }
  if (right < 0) [left, top, right, bottom] = [0, 0, width - 1, height - 1];
  const size = Math.max(right - left, bottom - top) + 1;
  const side = Math.round(size * (1 + 2 * margin));
  const canvas = new OffscreenCanvas(side, side);
  const target = canvas.getContext("2d");
  target.fillStyle = "#000";
  target.fillRect(0, 0, side, side);
  const [x, y] = [(side - (right - left + 1)) / 2, (side - (bottom - top + 1)) / 2];
  target.drawImage(pad, left, top, right - left + 1, bottom - top + 1, x, y, right - left + 1, bottom - top + 1);
  return canvas.convertToBlob();
}
