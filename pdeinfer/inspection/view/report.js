// Starts the file of `pdeinfer inspect --html`, which holds its data.

import { bars, decode, h, seen } from "./answer.js";
import { equation } from "./equation.js";
import { PdeView } from "./view.js";

const inspection = decode(JSON.parse(document.getElementById("data").textContent));
const { dt, num_steps: numSteps } = inspection.values;
document.getElementById("answer").append(h("div", { className: "verdict" }, seen(inspection.pixels), bars(inspection.top)));
document.getElementById("values").textContent = `K = ${numSteps} step${numSteps > 1 ? "s" : ""} of dt = ${dt}, as trained`;
equation(document.getElementById("equation"), inspection.values);
new PdeView(document.getElementById("view")).setInspection(inspection);
