// Starts the file of `pdeinfer inspect --html`, which holds its data.

import { bars, decode, seen } from "./answer.js";
import { $, h } from "./dom.js";
import { showEquation } from "./equation.js";
import { PdeView } from "./view.js";

const inspection = decode(JSON.parse($("data").textContent));
const { dt, num_steps: numSteps } = inspection.values;
$("answer").append(h("div", { className: "verdict" }, seen(inspection.pixels), bars(inspection.top)));
$("values").textContent = `K = ${numSteps} step${numSteps > 1 ? "s" : ""} of dt = ${dt}, as trained`;
showEquation($("equation"), inspection.values);
new PdeView($("view")).setInspection(inspection);
