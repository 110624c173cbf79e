// What can colour the text: a value for every token, and the scale on which it is shown. A scale has
// `most`, the value of the deepest colour; where it `signed` is, values below 0 have another colour.

function upTo(values, share) {
  const sorted = Float32Array.from(values).sort();
  return sorted[Math.min(sorted.length - 1, Math.floor(share * sorted.length))];
}

function largest(values) {
  return values.reduce((most, x) => Math.max(most, Math.abs(x)), 0);
}

const COLOURS = {
  surprisal: {
    text: "surprisal",
    about:
      "A token is the deeper in colour the more bits it cost: its surprisal is −log₂ of the " +
      "probability that the model gave it before it came. 0 bits is certain, 1 bit is a coin, and " +
      "2 to the mean surprisal is the perplexity.",
    values: (view) => view.run.surprisal,
    scale: (view) => ({ most: Math.max(1, Math.ceil(upTo(view.page.all("surprisal"), 0.99))), unit: "bits" }),
  },
  entropy: {
    text: "entropy",
    about:
      "A token is the deeper in colour the less the model knew what would come in its place: the " +
      "entropy of the prediction is the surprisal that the model itself expected, in the mean.",
    values: (view) => view.run.entropy,
    scale: (view) => ({ most: Math.max(1, Math.ceil(upTo(view.page.all("entropy"), 0.99))), unit: "bits" }),
  },
  difference: {
    text: "difference",
    about:
      "Surprisal of the one model minus that of the other: orange where this model was the more " +
      "surprised, blue where the other one was.",
    values: (view) => view.run.surprisal.map((bits, i) => bits - view.other.run.surprisal[i]),
    scale: (view) => {
      const sizes = COLOURS.difference.values(view).map(Math.abs);
      return { most: Math.max(1, Math.ceil(upTo(sizes, 0.99))), unit: "bits", signed: true };
    },
  },
  unit: {
    text: "a unit",
    about: "",
    values: (view) => view.series,
    scale: (view) => view.unitScale(),
  },
};

// A bar with the colours of a scale and its numbers.
function legend({ most, unit, signed, gate }, digits) {
  const show = (x) => `${fixed(x, digits)}${unit ? ` ${unit}` : ""}`;
  const marks = signed ? [show(-most), "0", show(most)] : ["0", show(most / 2), show(most)];
  return element(
    "div",
    { class: "legend" },
    element("div", { class: `ramp ${signed ? "both" : gate ? "open" : "one"}`, "aria-hidden": "true" }),
    element("div", { class: "marks" }, marks.map((mark) => element("span", {}, mark))),
  );
}
