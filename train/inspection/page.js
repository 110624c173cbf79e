// The page: a head, and one view for each run, which show one token of one text.

function fileName(run) {
  return run.name.replace(/^.*[\\/]/, "").replace(/[^\w.-]+/g, "_") || "run";
}

class RunView {
  constructor(run, page) {
    this.run = run;
    this.page = page;
    this.colour = "surprisal";
  }

  // Once all views are there: one may ask another for its numbers.
  build(other) {
    const { run } = this;
    this.other = other;
    this.text = new TextView(this);
    this.token = new TokenView(this);
    this.units = new UnitView(this);
    const kinds = Object.entries(COLOURS).filter(([kind]) => other || kind !== "difference");
    this.choices = choices(
      "Colour the text by",
      kinds.map(([kind, { text }]) => [kind, text]),
      this.colour,
      (kind) => this.colourBy(kind),
    );
    this.about = element("p", { class: "about" });
    this.legend = element("div");
    this.box = element(
      "article",
      { class: "run", "aria-label": run.name },
      element("h2", {}, run.name),
      element(
        "dl",
        { class: "facts" },
        run.facts.map(([name, value]) =>
          element("div", {}, element("dt", {}, name), element("dd", {}, value)),
        ),
      ),
      element(
        "div",
        { class: "reading" },
        element(
          "div",
          { class: "left" },
          element("div", { class: "panel controls" }, this.choices, this.units.box, this.about, this.legend),
          this.text.box,
        ),
        this.token.box,
      ),
      costliest(this),
      foundUnits(this),
      saturation(this),
      this.saves(),
    );
    this.units.changed();
    this.colourBy(this.colour);
  }

  saves() {
    const { run } = this;
    const near = run.neighbours
      ? saveButton("nearest words", `${fileName(run)}-nearest`, () => neighbourRows(run))
      : null;
    return element(
      "section",
      { class: "panel", "aria-label": `Numbers of ${run.name} as files` },
      element("h3", {}, "The numbers of every token"),
      element(
        "p",
        {},
        "Surprisal and entropy in bits, the rank of what came, and the likeliest tokens with their " +
          "probabilities; for each word of the page those nearest to it.",
      ),
      element(
        "div",
        { class: "row" },
        saveButton("all tokens", `${fileName(run)}-tokens`, () => tokenRows(run)),
        near,
      ),
    );
  }

  colourBy(kind) {
    this.colour = kind;
    choose(this.choices, kind);
    this.units.box.hidden = kind !== "unit";
    this.about.textContent = kind === "unit" ? this.unitAbout() : COLOURS[kind].about;
    const scale = COLOURS[kind].scale(this);
    this.text.paint(COLOURS[kind].values(this), scale);
    this.legend.replaceChildren(legend(scale, scale.most < 10 ? 2 : 0));
    if (this.shownToken !== undefined) this.show(this.shownToken);
  }

  unitAbout() {
    return this.unitScale().gate
      ? "The deeper the colour, the wider the gate was open after the token was read."
      : "Orange is above zero and blue below, after the token was read; the deepest colour is the " +
          "unit's largest value in this text.";
  }

  unitScale() {
    if (this.run.quantity(this.unit).left) return { most: 1, gate: true };
    return { most: largest(this.series), signed: true };
  }

  unitValue(i) {
    return fixed(this.series[i]);
  }

  // A unit was chosen in its controls.
  lookAt(unit) {
    this.unit = unit;
    this.series = this.run.series(unit);
    this.units.show();
    if (this.colour === "unit") this.colourBy("unit");
  }

  // A unit was chosen elsewhere on the page.
  showUnit(unit) {
    this.colour = "unit";
    this.units.unit = unit;
    this.box.querySelector(".reading").scrollIntoView({ block: "start" });
    say(`the text is coloured by ${this.run.unitName(unit)}`);
  }

  show(i) {
    this.shownToken = i;
    this.token.show(i);
    if (this.colour === "unit") this.units.drawCurve(i);
  }

  choose(i, moves) {
    this.text.choose(i, moves);
    this.show(i);
  }
}

class Page {
  constructor(data) {
    Object.assign(this, data);
    this.runs = data.runs.map((run) => new Run(run, this));
    this.views = this.runs.map((run) => new RunView(run, this));
    this.views.forEach((view, at) => view.build(this.views[1 - at]));
    this.chosen = 0;
  }

  // The numbers of that name of all runs, so that they share one scale.
  all(name) {
    return this.runs.flatMap((run) => Array.from(run[name]));
  }

  choose(i, says) {
    this.chosen = i;
    for (const view of this.views) view.choose(i, says);
    if (says) {
      const spoken = this.views.map((view) => `${view.other ? `${view.run.name}: ` : ""}${view.token.spoken(i)}`);
      say(spoken.join("; "));
    }
  }

  // Show another token for as long as the mouse is over it.
  hover(i) {
    for (const view of this.views) view.show(i ?? this.chosen);
  }

  head() {
    const theme = choices(
      "Mode",
      [
        ["auto", "as the system"],
        ["light", "light"],
        ["dark", "dark"],
      ],
      "auto",
      (value) => {
        document.documentElement.dataset.theme = value;
      },
    );
    return element(
      "header",
      {},
      element("div", { class: "title" }, element("h1", {}, this.title), theme),
      element("p", { class: "lead" }, this.about),
      element(
        "p",
        { class: "help" },
        "Point at a token, or choose it by a click or the arrow keys, to see what was expected in " +
          "its place. In the text, Home and End go to the ends of a line, with Ctrl to the ends of " +
          "the text.",
      ),
    );
  }
}

const data = JSON.parse(document.getElementById("data").textContent);
const page = new Page(await unpacked(data));
document
  .getElementById("page")
  .replaceChildren(page.head(), element("div", { class: `runs of-${page.runs.length}` }, page.views.map(({ box }) => box)));
page.choose(0, false);
document.documentElement.dataset.ready = "yes";
