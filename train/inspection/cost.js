// Where the loss comes from: the tokens that cost the most bits.

const COSTLIEST = 12;

function costliest(view) {
  const { run, page } = view;
  const order = Array.from(run.surprisal.keys()).sort((a, b) => run.surprisal[b] - run.surprisal[a]);
  const total = run.surprisal.reduce((sum, bits) => sum + bits, 0);
  const tenth = order.slice(0, Math.ceil(run.size / 10));
  const share = tenth.reduce((sum, i) => sum + run.surprisal[i], 0) / total;
  return element(
    "section",
    { class: "panel", "aria-label": `The costliest tokens of ${run.name}` },
    element("h3", {}, "Where the loss comes from"),
    element(
      "p",
      {},
      `The costliest tenth of the tokens holds ${percent(share)} of all bits. These cost the most; ` +
        "choose one to see it in the text.",
    ),
    element(
      "ul",
      { class: "costly" },
      order.slice(0, COSTLIEST).map((i) => {
        const word = named(page.words[page.tokens[i]]);
        return element(
          "li",
          {},
          button(word, () => page.choose(i, true), {
            "aria-label": `${word}, token ${count(i + 1)}, ${fixed(run.surprisal[i], 1)} bits`,
          }),
          element("span", { class: "p" }, `${fixed(run.surprisal[i], 1)} bits`),
        );
      }),
    ),
  );
}
