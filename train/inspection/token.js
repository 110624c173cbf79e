// What is known of one token: its numbers, the guesses in its place, the words nearest to it.

class TokenView {
  constructor(view) {
    this.view = view;
    this.body = element("div");
    this.box = element(
      "section",
      { class: "panel token-panel", "aria-label": `The chosen token by ${view.run.name}` },
      this.body,
    );
  }

  show(i) {
    const { run, page } = this.view;
    const word = page.words[page.tokens[i]];
    const isNew = page.unknown[i] && word !== "<unk>";
    const parts = [
      element(
        "h3",
        { class: "chosen" },
        element("bdi", { class: "word" }, named(word)),
        element("small", {}, `token ${count(i + 1)} of ${count(run.size)}`),
      ),
      isNew ? element("p", { class: "note" }, "The model does not know it, and read <unk>.") : null,
      this.numbers(i),
      element("h4", {}, "What was expected in its place"),
      this.guesses(i, word),
      ...this.nearest(i),
    ];
    this.body.replaceChildren(...parts.filter((part) => part !== null));
  }

  numbers(i) {
    const { run } = this.view;
    const rows = [
      ["surprisal", `${fixed(run.surprisal[i])} bits`],
      ["entropy", `${fixed(run.entropy[i])} bits`],
      ["rank", `${ordinal(run.rank[i])} of ${count(run.vocabulary)}`],
    ];
    if (this.view.colour === "unit") {
      rows.push([run.unitName(this.view.unit), this.view.unitValue(i)]);
    }
    return element(
      "dl",
      { class: "numbers" },
      rows.map(([name, value]) => element("div", {}, element("dt", {}, name), element("dd", {}, value))),
    );
  }

  guesses(i, word) {
    const { run } = this.view;
    const found = run.guesses(i);
    const most = Math.max(...found.map(({ p }) => p));
    if (!found.some(({ came }) => came)) {
      found.push({ word, p: 2 ** -run.surprisal[i], came: true });
    }
    const rows = found.map((guess) => {
      const bar = element("span", { class: "bar", "aria-hidden": "true" });
      bar.style.setProperty("--w", guess.p / most);
      return element(
        "li",
        { class: guess.came ? "came" : null },
        element("bdi", { class: "word" }, named(guess.word)),
        element("span", { class: "track" }, bar),
        element("span", { class: "p" }, percent(guess.p)),
        guess.came ? element("span", { class: "unseen" }, " this is what came") : null,
      );
    });
    return element("ol", { class: "guesses" }, rows);
  }

  nearest(i) {
    const { run, page } = this.view;
    const found = run.nearest(page.ids[i]);
    if (found.length === 0) return [];
    return [
      element("h4", {}, "Nearest in the embedding, by cosine"),
      element(
        "ul",
        { class: "nearest" },
        found.map(({ word, cosine }) =>
          element(
            "li",
            {},
            element("bdi", { class: "word" }, named(page.words[word])),
            element("span", { class: "p" }, fixed(cosine)),
          ),
        ),
      ),
    ];
  }

  // For the screen reader.
  spoken(i) {
    const { run, page } = this.view;
    const [first] = run.guesses(i);
    const unit =
      this.view.colour === "unit"
        ? `, unit ${run.unitName(this.view.unit)} ${this.view.unitValue(i)}`
        : "";
    return (
      `${named(page.words[page.tokens[i]])}, ${fixed(run.surprisal[i])} bits, ` +
      `rank ${count(run.rank[i])}, expected ${named(first.word)}${unit}`
    );
  }
}

function tokenRows(run) {
  const { words, tokens, unknown } = run.page;
  const numbers = Array.from({ length: run.k }, (_, at) => at + 1);
  const rows = [
    [
      ...["token_id", "token", "unk", "surprisal", "entropy", "rank"],
      ...numbers.flatMap((n) => [`best_${n}`, `p_${n}`]),
    ],
  ];
  for (let i = 0; i < run.size; i += 1) {
    rows.push([
      i + 1,
      words[tokens[i]],
      unknown[i],
      digits(run.surprisal[i]),
      digits(run.entropy[i]),
      run.rank[i],
      ...run.guesses(i).flatMap(({ word, p }) => [word, digits(p)]),
    ]);
  }
  return rows;
}

function neighbourRows(run) {
  const { words } = run.page;
  const rows = [["word", "neighbour", "cosine"]];
  for (const word of run.near.keys()) {
    for (const { word: other, cosine } of run.nearest(word)) {
      rows.push([words[word], words[other], digits(cosine)]);
    }
  }
  return rows;
}
