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

/** Let a button open the drawing's dialog; `prepare` returns the data set whose digits the drawn one is framed like. */
export function setUpDrawing(button, dialog, prepare, take) {
  const pad = $("pad");
  const context = pad.getContext("2d", { willReadFrequently: true });
  let pen = null; // the pointer that was pressed on the pad
  let last = null;
  const wipe = () => {
    pen = null;
    $("undrawn").hidden = true;
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
    if (!event.isPrimary) return; // a second finger
    pen = event.pointerId;
    pad.setPointerCapture(pen);
    $("undrawn").hidden = true;
    last = null;
    stroke(event);
  });
  pad.addEventListener("pointermove", (event) => event.pointerId === pen && event.buttons && stroke(event));
  for (const type of ["pointerup", "pointercancel"]) {
    pad.addEventListener(type, (event) => {
      if (event.pointerId === pen) pen = null;
    });
  }
  $("wipe").addEventListener("click", wipe);
  $("draw-close").addEventListener("click", () => dialog.close());
  $("drawn").addEventListener("click", async () => {
    const box = drawnBox(pad, context);
    $("undrawn").hidden = box !== null;
    if (!box) return;
    const blob = await framed(pad, box, prepare() === "mnist" ? 0.2 : 0.08);
    dialog.close();
    take([new File([blob], "drawing.png", { type: blob.type })]);
  });
}

/** Return the box of what was drawn, [left, top, width, height], or null. */
function drawnBox({ width, height }, context) {
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
  return right < 0 ? null : [left, top, right - left + 1, bottom - top + 1];
}

/** Return a square picture of what was drawn, as the data sets frame their digits. */
function framed(pad, [left, top, width, height], margin) {
  const side = Math.round(Math.max(width, height) * (1 + 2 * margin));
  const canvas = new OffscreenCanvas(side, side);
  const target = canvas.getContext("2d");
  target.fillStyle = "#000";
  target.fillRect(0, 0, side, side);
  target.drawImage(pad, left, top, width, height, (side - width) / 2, (side - height) / 2, width, height);
  return canvas.convertToBlob();
}
