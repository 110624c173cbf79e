// The text as a list of tokens, one of which is chosen: by the mouse, a finger or the keyboard.

class TextView {
  constructor(view) {
    this.view = view;
    this.id = newId("token");
    this.tokens = [];
    this.box = element("div", {
      class: `text ${view.page.level}`,
      role: "listbox",
      tabindex: 0,
      "aria-label": `The text as ${view.run.name} read it, ${count(view.run.size)} tokens`,
      on: {
        click: (event) => this.withToken(event, (i) => view.page.choose(i, true)),
        mouseover: (event) => this.withToken(event, (i) => view.page.hover(i)),
        mouseleave: () => view.page.hover(null),
        keydown: (event) => this.key(event),
      },
    });
    this.fill();
  }

  fill() {
    const { words, tokens, unknown } = this.view.page;
    let line = null;
    let lines = 0;
    tokens.forEach((word, i) => {
      if (line === null) {
        lines += 1;
        line = element("div", { class: "line", role: "group", "aria-label": `line ${lines}`, dir: "auto" });
        this.box.append(line);
      }
      const ends = endsLine(words[word]);
      const made = element(
        "span",
        {
          id: `${this.id}-${i}`,
          class: `token${unknown[i] ? " unknown" : ""}${ends ? " end" : ""}`,
          role: "option",
          "aria-selected": "false",
          "data-i": i,
        },
        ends ? "↵" : shown(words[word]),
      );
      line.append(made);
      if (!ends && this.view.page.level !== "char") line.append(" ");
      this.tokens.push(made);
      if (ends) line = null;
    });
  }

  withToken(event, use) {
    const token = event.target.closest(".token");
    if (token !== null) use(Number(token.dataset.i));
  }

  // Colour every token by values (T,) on a scale.
  paint(values, { most, signed, gate }) {
    this.box.classList.toggle("open", Boolean(gate));
    this.tokens.forEach((token, i) => {
      const x = most > 0 ? values[i] / most : 0;
      token.style.setProperty("--x", Math.min(1, Math.abs(x)).toFixed(3));
      token.classList.toggle("below", Boolean(signed) && x < 0);
    });
  }

  choose(i, moves) {
    if (this.chosen !== undefined) {
      this.tokens[this.chosen].setAttribute("aria-selected", "false");
    }
    this.chosen = i;
    this.tokens[i].setAttribute("aria-selected", "true");
    this.box.setAttribute("aria-activedescendant", this.tokens[i].id);
    if (moves) this.scrollTo(this.tokens[i]);
  }

  // Move the text in its own box, and leave the page where it is.
  scrollTo(token) {
    const box = this.box.getBoundingClientRect();
    const at = token.getBoundingClientRect();
    const margin = Math.min(60, box.height / 4);
    if (at.top < box.top + margin) this.box.scrollTop -= box.top + margin - at.top;
    if (at.bottom > box.bottom - margin) this.box.scrollTop += at.bottom - box.bottom + margin;
  }

  key(event) {
    const i = this.chosen;
    const last = this.tokens.length - 1;
    const moves = {
      ArrowRight: () => i + 1,
      ArrowLeft: () => i - 1,
      ArrowDown: () => this.nextRow(i, 1),
      ArrowUp: () => this.nextRow(i, -1),
      PageDown: () => i + 100,
      PageUp: () => i - 100,
      Home: () => (event.ctrlKey ? 0 : this.edge(i, -1)),
      End: () => (event.ctrlKey ? last : this.edge(i, 1)),
    };
    if (!(event.key in moves) || event.altKey || event.metaKey) return;
    event.preventDefault();
    this.view.page.choose(Math.max(0, Math.min(last, moves[event.key]())), true);
  }

  // The first or the last token of a line of the text.
  edge(i, step) {
    const line = this.tokens[i].parentElement;
    let at = i;
    while (this.tokens[at + step]?.parentElement === line) at += step;
    return at;
  }

  // The token below or above, as the window breaks the lines.
  nextRow(i, step) {
    const from = this.tokens[i].getBoundingClientRect();
    const middle = (from.left + from.right) / 2;
    let best = null;
    let row = null;
    for (let at = i + step; at >= 0 && at < this.tokens.length; at += step) {
      const to = this.tokens[at].getBoundingClientRect();
      if (row === null && Math.abs(to.top - from.top) < from.height / 2) continue;
      row ??= to.top;
      if (Math.abs(to.top - row) > to.height / 2) break;
      const away = Math.max(0, to.left - middle, middle - to.right);
      if (best === null || away < best.away) best = { at, away };
    }
    return best === null ? i : best.at;
  }
}
