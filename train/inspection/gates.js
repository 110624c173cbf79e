// How often gates are shut or open: Karpathy, Johnson and Fei-Fei (2015), figure 3.

function gatesOf(run) {
  return run.layers.flatMap(({ name, quantities }, layer) =>
    quantities
      .filter(({ left }) => left)
      .map((quantity) => ({ layer, layerName: name, ...quantity })),
  );
}

function mean(values) {
  return values.reduce((sum, x) => sum + x, 0) / values.length;
}

function saturation(view) {
  const { run } = view;
  const gates = gatesOf(run);
  if (gates.length === 0) {
    return element(
      "section",
      { class: "panel", "aria-label": `Gates of ${run.name}` },
      element("h3", {}, "Saturated gates"),
      element("p", {}, "This model has no gates that open and shut, or its cell does not tell of them."),
    );
  }
  const rows = gates.map(({ layerName, label, left, right }) => [
    `${layerName}, ${label}`,
    percent(mean(left)),
    percent(mean(right)),
  ]);
  return element(
    "section",
    { class: "panel", "aria-label": `Gates of ${run.name}` },
    element("h3", {}, "Saturated gates"),
    element(
      "p",
      {},
      "Each circle is a unit: how much of the time its gate is as good as shut (below 0.1), to the " +
        "right, and how much of it as good as open (above 0.9), upwards. The two add up to 1 at " +
        "most. In the upper left corner a forget gate remembers, an input gate takes all that " +
        "comes; in the corner at zero a gate is always in between. The figure is that of Karpathy, " +
        "Johnson and Fei-Fei (2015). Choose a circle to see its gate in the text.",
    ),
    element("div", { class: "scatters" }, gates.map((gate) => scatter(view, gate))),
    table("Mean share of the time, by gate and layer", ["gate", "shut, below 0.1", "open, above 0.9"], rows),
    saveButton("the shares of all units", `${fileName(run)}-gates`, () => saturationRows(run)),
  );
}

function scatter(view, { layer, layerName, name, label, left, right }) {
  const [size, edge] = [200, 30];
  const at = (share) => edge + (size - edge - 8) * share;
  const points = Array.from(left, (shut, number) =>
    drawing(
      "circle",
      { class: "gate", cx: at(shut), cy: size - at(right[number]), r: 3, "data-unit": number },
      drawing("title", {}, `unit ${number}: shut ${percent(shut)}, open ${percent(right[number])}`),
    ),
  );
  const axis = (x1, y1, x2, y2, kind = "axis") =>
    drawing("line", { class: kind, x1: at(x1), y1: size - at(y1), x2: at(x2), y2: size - at(y2) });
  const word = (x, y, text, anchor, turn = null) =>
    drawing("text", { x, y, "text-anchor": anchor, transform: turn }, text);
  return element(
    "figure",
    {},
    drawing(
      "svg",
      {
        viewBox: `0 0 ${size} ${size}`,
        role: "img",
        "aria-label":
          `${layerName}, ${label}: shut ${percent(mean(left))} and open ${percent(mean(right))} of ` +
          `the time, mean of ${count(left.length)} units`,
        on: {
          click: ({ target }) => {
            const number = target.closest("circle")?.dataset.unit;
            if (number) view.showUnit({ layer, quantity: name, number: Number(number) });
          },
        },
      },
      axis(0, 0, 1, 0),
      axis(0, 0, 0, 1),
      axis(0, 1, 1, 0, "limit"),
      word(at(0), size - at(0) + 13, "0", "middle"),
      word(at(1), size - at(0) + 13, "1", "middle"),
      word(at(0) - 6, size - at(1) + 4, "1", "end"),
      word(at(0.5), size - 6, "shut", "middle"),
      word(12, size - at(0.5), "open", "middle", `rotate(-90 12 ${size - at(0.5)})`),
      ...points,
    ),
    element("figcaption", {}, `${layerName}, ${label}`),
  );
}

function saturationRows(run) {
  const rows = [["layer", "gate", "unit", "below_0.1", "above_0.9"]];
  for (const { layer, letter, left, right } of gatesOf(run)) {
    left.forEach((shut, number) => rows.push([layer + 1, letter, number, digits(shut), digits(right[number])]));
  }
  return rows;
}
