// The equation of the PDE layers in MathML, with the terms that are switched off struck out.

import { h } from "./dom.js";

const MATH = "http://www.w3.org/1998/Math/MathML";

function m(tag, ...children) {
  const element = document.createElementNS(MATH, tag);
  element.append(...children);
  return element;
}

const symbol = (text) => m("mi", text);
const sign = (text) => m("mo", text);
// Spaced by hand: an operator at the edge of a group would lose its space.
const plus = () => {
  const element = sign("+");
  element.setAttribute("lspace", "0.3em");
  element.setAttribute("rspace", "0.3em");
  element.setAttribute("form", "infix");
  return element;
};
const rate = (over, by) => m("mfrac", m("mrow", sign("∂"), ...over), m("mrow", sign("∂"), symbol(by)));
const product = (field) => [sign("("), symbol(field), symbol("H"), sign(")")];
const diffusivity = (axis) => m("msub", symbol("D"), symbol(axis));
const gradient = (axis) => m("mrow", sign("("), diffusivity(axis), rate([symbol("H")], axis), sign(")"));
const spread = (axis) => m("mrow", rate([], axis), gradient(axis));

/** Write the equation into an element; `values` says which of its terms are on. */
export function showEquation(element, { advection, diffusion, source }) {
  const group = (name, isOn, ...children) => {
    const row = m("mrow", ...children);
    row.setAttribute("class", isOn ? name : `${name} off`);
    return row;
  };
  const display = (row) => {
    const math = m("math", row);
    math.setAttribute("displaystyle", "true");
    return math;
  };
  // Two halves, which stand below each other where there is no room for both.
  const moved = [rate(product("u"), "x"), plus(), rate(product("v"), "y")];
  const left = display(m("mrow", rate([symbol("H")], "t"), plus(), group("advection", advection, ...moved), sign("=")));
  const spreading = group("diffusion", diffusion, spread("x"), plus(), spread("y"));
  const right = display(m("mrow", spreading, plus(), group("source", source, symbol("f"))));
  const words = [
    ["advection", `advection moves H with the velocity (u, v)${advection ? "" : ": off"}`],
    ["diffusion", `diffusion spreads it by Dx and Dy${diffusion ? "" : ": off"}`],
    ["source", `the source f feeds H from the layer's input${source ? "" : ": off"}`],
  ].map(([className, text]) => h("span", { className }, text));
  const halves = h("div", { className: "halves" }, left, right);
  element.replaceChildren(halves, h("p", { className: "legend-line" }, ...words));
}
