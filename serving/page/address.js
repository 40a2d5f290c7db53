// The state of the page in its address.

/** Return what the address asks for: names, or null, and the state of the view. */
export function readAddress() {
  const values = new URLSearchParams(location.hash.slice(1));
  const number = (name) => (/^\d+$/.test(values.get(name) ?? "") ? Number(values.get(name)) : null);
  const channel = values.get("channel");
  return {
    model: values.get("model"),
    other: values.get("other"),
    sample: values.get("sample"),
    view: {
      layer: Math.max(1, number("layer") ?? 1),
      show: values.get("show") ?? "H",
      channel: ["mean", "all"].includes(channel) ? channel : number("channel"),
      step: number("step"),
      arrows: values.get("arrows") === "true",
    },
  };
}

/** Put the state of the view and what was chosen into the address. */
export function writeAddress({ layer, show, channel, step, arrows }, { model, other, sample }) {
  const values = { model, layer, show };
  if (channel !== null) values.channel = channel;
  if (step !== null) values.step = step;
  if (arrows) values.arrows = arrows;
  if (other) values.other = other;
  if (sample) values.sample = sample;
  history.replaceState(null, "", `#${new URLSearchParams(values)}`);
}
