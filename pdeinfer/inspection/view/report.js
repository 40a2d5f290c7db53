// Starts the file of `pdeinfer inspect --html`, which holds its data.

import { bars, decode, h, seen } from "./answer.js";
import { equation } from "./equation.js";
import { PdeView } from "./view.js";

const inspection = decode(JSON.parse(document.getElementById("data").textContent));
const { dt, num_steps: numSteps } = inspection.values;
const verdict = h("div", { className: "verdict" }, seen(inspection.pixels), bars(inspection.top));
const steps = `K = ${numSteps} step${numSteps > 1 ? "s" : ""}`;
document.getElementById("answer").append(verdict);
document.getElementById("values").textContent = `${steps} of dt = ${dt}, as trained`;
equation(document.getElementById("equation"), inspection.values);
new PdeView(document.getElementById("view")).setInspection(inspection);
