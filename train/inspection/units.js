// The unit that is looked at, what it did around the chosen token, and the units that were found.

const AROUND = 60; // tokens to either side in the curve

class UnitView {
  constructor(view) {
    this.view = view;
    const { run } = view;
    this.layer = chooser(
      run.layers.map(({ name }, k) => [String(k), name]),
      "0",
      () => this.changed(true),
    );
    this.quantity = element("select", { on: { change: () => this.changed() } });
    this.number = element("input", {
      type: "number",
      min: 0,
      step: 1,
      value: 0,
      inputmode: "numeric",
      on: { change: () => this.changed() },
    });
    this.note = element("p", { class: "note" });
    this.curve = element("div", { class: "curve" });
    this.box = element(
      "div",
      { class: "unit" },
      element(
        "div",
        { class: "row" },
        labelled("Layer", this.layer),
        labelled("Value", this.quantity),
        labelled("Unit", this.number),
        button("‹", () => this.step(-1), { "aria-label": "the unit before" }),
        button("›", () => this.step(1), { "aria-label": "the next unit" }),
      ),
      this.note,
      this.curve,
      element(
        "div",
        { class: "row" },
        saveButton("this unit", () => `${fileName(run)}-${this.key()}`, () => this.rows()),
        saveButton("all units of this value", () => `${fileName(run)}-${this.key(true)}`, () =>
          this.allRows(),
        ),
      ),
    );
    this.fillQuantities();
  }

  fillQuantities() {
    const before = this.quantity.value;
    const { quantities } = this.view.run.layers[Number(this.layer.value)];
    this.quantity.replaceChildren(
      ...quantities.map(({ name, label }) => element("option", { value: name }, label)),
    );
    if (quantities.some(({ name }) => name === before)) this.quantity.value = before;
  }

  get unit() {
    return {
      layer: Number(this.layer.value),
      quantity: this.quantity.value,
      number: Number(this.number.value),
    };
  }

  set unit({ layer, quantity, number }) {
    this.layer.value = String(layer);
    this.fillQuantities();
    this.quantity.value = quantity;
    this.number.value = number;
    this.changed();
  }

  step(by) {
    const { width } = this.view.run.quantity(this.unit);
    this.number.value = (this.unit.number + by + width) % width;
    this.changed();
  }

  changed(otherLayer = false) {
    if (otherLayer) this.fillQuantities();
    const { width } = this.view.run.quantity(this.unit);
    const wanted = Math.round(Number(this.number.value)) || 0;
    this.number.max = width - 1;
    this.number.value = Math.max(0, Math.min(width - 1, wanted));
    this.view.lookAt(this.unit);
  }

  key(all = false) {
    const { layer, quantity, number } = this.unit;
    return `layer${layer + 1}-${quantity.replace(/\W+/g, "_")}${all ? "" : `-${number}`}`;
  }

  rows() {
    const { tokens, words } = this.view.page;
    const name = this.key();
    return [
      ["token_id", "token", name],
      ...Array.from(this.view.series, (x, i) => [i + 1, words[tokens[i]], digits(x)]),
    ];
  }

  allRows() {
    const { run } = this.view;
    const { width } = run.quantity(this.unit);
    const units = Array.from({ length: width }, (_, number) => run.series({ ...this.unit, number }));
    return [
      ["token_id", ...units.map((_, number) => `unit_${number}`)],
      ...Array.from({ length: run.size }, (_, i) => [i + 1, ...units.map((unit) => digits(unit[i]))]),
    ];
  }

  show() {
    const { run } = this.view;
    const quantity = run.quantity(this.unit);
    const off = run.error(this.unit);
    this.note.textContent =
      `${quantity.label} of unit ${this.unit.number}, one of ${count(quantity.width)} ` +
      `(numbered from 0), after each token was read.` +
      (run.steps < 255 ? ` To keep the page small, values are rounded by up to ±${fixed(off, 3)}.` : "");
  }

  // The unit's value at the tokens around token i.
  drawCurve(i) {
    const { series, page } = this.view;
    const { most, gate } = this.view.unitScale();
    const first = Math.max(0, Math.min(i - AROUND, series.length - 1 - 2 * AROUND));
    const last = Math.min(series.length - 1, first + 2 * AROUND);
    const [wide, high] = [480, 84];
    const x = (t) => 4 + ((wide - 8) * (t - first)) / Math.max(1, last - first);
    const y = (v) => {
      const share = gate ? v / most : (v / most + 1) / 2;
      return high - 4 - (high - 8) * share;
    };
    const line = [];
    for (let t = first; t <= last; t += 1) line.push(`${x(t).toFixed(1)},${y(series[t]).toFixed(1)}`);
    this.curve.replaceChildren(
      drawing(
        "svg",
        {
          viewBox: `0 0 ${wide} ${high}`,
          role: "img",
          "aria-label":
            `The unit from token ${count(first + 1)} to ${count(last + 1)}; ` +
            `at ${named(page.words[page.tokens[i]])} it is ${this.view.unitValue(i)}`,
        },
        drawing("line", { class: "zero", x1: 0, x2: wide, y1: y(0), y2: y(0) }),
        drawing("line", { class: "here", x1: x(i), x2: x(i), y1: 0, y2: high }),
        drawing("polyline", { class: "values", points: line.join(" ") }),
        drawing("circle", { class: "point", cx: x(i), cy: y(series[i]), r: 3.5 }),
      ),
    );
  }
}

// The units that follow a property of the text best.
function foundUnits(view) {
  const { run, page } = view;
  return element(
    "section",
    { class: "panel", "aria-label": `Units that were found in ${run.name}` },
    element("h3", {}, "Units that were found"),
    element(
      "p",
      {},
      "Which unit follows what? AUC is the probability that the unit is larger after a token of " +
        "the kind than after another one: 1 and 0 tell the two apart, 0.5 says nothing. The rank " +
        "correlation is 1 or −1 where the unit rises or falls with the number. What the best of " +
        "all units reaches by chance is what it reaches on a text along which the property was " +
        "shifted. Choose a unit to see it in the text.",
    ),
    element(
      "div",
      { class: "properties" },
      page.properties.map((property, at) => foundProperty(view, property, run.found[at])),
    ),
    saveButton("units that were found", `${fileName(run)}-found`, () => foundRows(run)),
  );
}

function foundProperty(view, { name, about, measure, members }, { chance, units }) {
  const { size } = view.run;
  const middle = measure === "AUC" ? 0.5 : 0;
  const isClear = ({ score }) => chance === null || Math.abs(score - middle) > chance;
  const what = `${about[0].toUpperCase()}${about.slice(1)}.`;
  const many = measure === "AUC" ? ` So of ${count(members)} of ${count(size)} tokens.` : "";
  const nothing = " It is the same of every token here, so there is nothing to find.";
  const least = chance === null ? null : fixed(middle - chance);
  const byChance = least === null ? "" : `; by chance ${least} or ${fixed(middle + chance)}`;
  const unclear = units.filter((unit) => !isClear(unit)).length;
  const grey = unclear === 0 ? null : `${unclear === units.length ? "All" : "Grey ones"} are no clearer than by chance.`;
  return element(
    "div",
    { class: "property" },
    element("h4", {}, name),
    element("p", { class: "note" }, units.length === 0 ? what + nothing : what + many),
    units.length === 0 ? null : element("p", { class: "note" }, `${measure}${byChance}:`),
    element("ul", { class: "found" }, units.map((unit) => foundUnit(view, unit, measure, isClear(unit)))),
    grey === null ? null : element("p", { class: "note" }, grey),
  );
}

function foundUnit(view, unit, measure, isClear) {
  const strength = measure === "AUC" ? 2 * Math.abs(unit.score - 0.5) : Math.abs(unit.score);
  const bar = element("span", { class: `bar${isClear ? "" : " unclear"}`, "aria-hidden": "true" });
  bar.style.setProperty("--w", strength);
  const name = view.run.unitName(unit);
  return element(
    "li",
    {},
    button(name, () => view.showUnit(unit), {
      "aria-label": `${name}: colour the text by it; ${measure} ${fixed(unit.score)}`,
    }),
    element("span", { class: "track" }, bar),
    element("span", { class: "p" }, fixed(unit.score)),
  );
}

function foundRows(run) {
  const rows = [["property", "measure", "layer", "value", "unit", "score", "chance"]];
  run.page.properties.forEach(({ name, measure }, at) => {
    for (const { layer, quantity, number, score } of run.found[at].units) {
      const { letter } = run.quantity({ layer, quantity });
      rows.push([name, measure, layer + 1, letter, number, digits(score), digits(run.found[at].chance ?? NaN)]);
    }
  });
  return rows;
}
