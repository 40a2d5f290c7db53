// The answers of the models, side by side: classes, times, costs, cards.

import { bars, seen, times } from "./answer.js";
import { card } from "./card.js";
import { $, h } from "./dom.js";
import { modelNamed } from "./models.js";

/** Show one answer of /inspect or more. */
export function showAnswers(found) {
  $("answers").replaceChildren(
    ...found.map((answer) => {
      const entry = modelNamed(answer.model);
      const numbers = h("div", {}, bars(answer.top), h("p", { className: "note cost" }, cost(entry)));
      return h(
        "article",
        { className: "answer", "aria-label": answer.model },
        found.length > 1 ? h("h3", {}, answer.model) : null,
        h("div", { className: "verdict" }, seen(answer.pixels), numbers),
        times(answer.milliseconds),
        card(entry, found.length === 1 && innerWidth > 960),
      );
    }),
  );
}

function cost({ macs, parameters }) {
  const millions = (macs / 1e6).toFixed(macs < 1e6 ? 2 : 1);
  const thousands = (parameters / 1000).toFixed(parameters < 10000 ? 1 : 0);
  return `${millions} M multiply-adds, ${thousands} k parameters`;
}

/** Replace the classes of the first answer; with `before`, marks show the scores that they had. */
export function replaceBars(top, before) {
  $("answers").firstElementChild.querySelector(".bars, .verdict .note").replaceWith(bars(top, before));
}

export function showNoAnswer() {
  $("answers").replaceChildren(h("p", { className: "note" }, "There is no answer to this picture yet."));
}
