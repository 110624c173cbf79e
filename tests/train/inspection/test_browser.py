"""The page in a browser: mouse, keys, files, both modes, three widths, and hostile texts."""

import csv
import io
import math
import re

import pytest

from tests.train.inspection.browser import browser, needs_browser, opened
from train import better_rnnlm, inspect, rnnlm

pytestmark = [needs_browser, pytest.mark.slow]

WIDTHS = (360, 768, 1400)
SIZES = {"wordvec_size": 8, "hidden_size": 8, "epochs": 1, "batch_size": 5, "time_size": 10}
RUN_THIS = "document.documentElement.dataset.ran=1"
HOSTILE = [
    f"</script><script>{RUN_THIS}</script>",
    f'<img/src=x/onerror="{RUN_THIS}">',
    f"<svg/onload={RUN_THIS}>",
    f"javascript:{RUN_THIS}",
    "<!--",
    "<style>*{display:none}</style>",
    "{{script}}",
    "&lt;b&gt;&quot;",
    "שלום",
    "مرحبا",
    "\u202eturned\u202c",
    "👩‍👩‍👧",
    "🏴‍☠️",
    "nul\0nul",
    "bell\x07\x1b[31m",
    "zero\u200bwidth",
    '"quoted",comma',
    "back\\slash",
    "constructor",
    "__proto__",
    "long" + 10_000 * "g",
]
TEXT = 'The cat sat on the mat .\nthe dog said " go on " to the cat in 1987 .\n'


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Pages by name, of short runs."""
    folder = tmp_path_factory.mktemp("pages")
    hostile = "".join(f"{' '.join(HOSTILE[:k])} .\n" for k in range(len(HOSTILE) + 1)) * 3
    texts = {"cats": TEXT * 60, "hostile": hostile}
    for name, text in texts.items():
        (folder / f"{name}.txt").write_text(text, encoding="utf-8")
    cats, spoilt = (str(folder / f"{name}.txt") for name in texts)
    rnnlm.main(rnnlm.Options(corpus=cats, out=folder / "one", **SIZES))
    rnnlm.main(rnnlm.Options(corpus=cats, out=folder / "few", max_vocab=9, **SIZES))
    rnnlm.main(rnnlm.Options(corpus=cats, out=folder / "chars", level="char", **SIZES))
    rnnlm.main(rnnlm.Options(corpus=spoilt, out=folder / "<img src=x onerror=alert(1)>", **SIZES))
    two = {"num_layers": 2, "cell": "gru"}
    better_rnnlm.main(better_rnnlm.Options(corpus=cats, out=folder / "two", **SIZES | two))
    plans = {
        "one": (["one"], {"word_class": ("year=[0-9]{4}",)}),
        "both": (["one", "two"], {}),
        "chars": (["chars"], {"word_class": ("cat=cat",)}),
        "hostile": (["<img src=x onerror=alert(1)>"], {"text": spoilt}),
        "unknown": (["few"], {"text": spoilt}),
    }
    pages = {}
    for name, (runs, options) in plans.items():
        pages[name] = folder / f"{name}.html"
        paths = tuple(folder / run for run in runs)
        inspect.main(inspect.Options(paths, out=pages[name], **options))
    return pages


@pytest.fixture(scope="module")
def chromium():
    with browser() as found:
        yield found


def chosen(page):
    """The number of the token that is chosen in each run."""
    return [
        int(each.get_attribute("data-i"))
        for each in page.locator(".token[aria-selected=true]").all()
    ]


def saved(page, name):
    """Rows of the file that a button saves."""
    with page.expect_download() as download:
        page.get_by_role("button", name=name).first.click()
    text = download.value.path().read_text(encoding="utf-8")
    return list(csv.reader(io.StringIO(text, newline="")))


def test_a_token_shows_its_guesses_to_the_mouse(made, chromium):
    with opened(chromium, made["one"]) as page:
        tokens, panel = page.locator(".token"), page.locator(".token-panel")
        assert panel.locator(".chosen .word").inner_text() == tokens.nth(0).inner_text()
        tokens.nth(3).hover()
        assert panel.locator(".chosen .word").inner_text() == tokens.nth(3).inner_text()
        assert panel.locator(".guesses li").count() in (5, 6)
        assert panel.locator(".guesses .came").count() == 1
        assert panel.locator(".nearest li").count() == 8
        assert "bits" in panel.locator(".numbers").inner_text()
        page.mouse.move(1, 1)  # away: the chosen one is back
        assert panel.locator(".chosen .word").inner_text() == tokens.nth(0).inner_text()
        tokens.nth(3).click()
        page.mouse.move(1, 1)
        assert chosen(page) == [3]
        assert panel.locator(".chosen .word").inner_text() == tokens.nth(3).inner_text()


def test_the_keyboard_goes_through_the_text_and_a_screen_reader_hears_it(made, chromium):
    with opened(chromium, made["one"]) as page:
        text = page.get_by_role("listbox")
        text.focus()
        at = []
        for key in ("ArrowRight", "ArrowRight", "ArrowLeft", "End", "Home", "Control+End"):
            page.keyboard.press(key)
            at.append(chosen(page)[0])
        last = page.locator(".token").count() - 1
        assert at == [1, 2, 1, at[3], 0, last] and at[3] > 2
        assert page.locator(".token").nth(at[3]).inner_text() == "↵"
        assert text.get_attribute("aria-activedescendant") == page.locator(
            ".token[aria-selected=true]"
        ).get_attribute("id")
        page.keyboard.press("Control+Home")
        tops = [page.locator(".token").nth(0).bounding_box()["y"]]
        for key in ("ArrowDown", "ArrowDown", "ArrowUp"):
            page.keyboard.press(key)
            tops.append(page.locator(".token").nth(chosen(page)[0]).bounding_box()["y"])
        assert tops[0] < tops[1] < tops[2] and tops[3] == tops[1]
        word = page.locator(".token[aria-selected=true]").inner_text()
        heard = re.compile(rf"^{re.escape(word)}, [\d.]+ bits, rank ")  # it waits for a pause
        page.locator("#said", has_text=heard).wait_for(state="attached")


def test_the_tab_key_reaches_every_control_and_focus_is_seen(made, chromium):
    with opened(chromium, made["one"]) as page:
        reached = []
        for _ in range(60):
            page.keyboard.press("Tab")
            here = page.evaluate(
                """() => {
                  const e = document.activeElement;
                  const drawn = e.matches("input[type=radio]") ? e.nextElementSibling : e;
                  const { outlineStyle } = getComputedStyle(drawn);
                  return [e.tagName, e.getAttribute("role") ?? "", outlineStyle];
                }"""
            )
            if here[0] == "BODY":
                break
            reached.append(here)
        assert {"INPUT", "BUTTON", "DIV"} <= {tag for tag, *_ in reached}
        assert "listbox" in {role for _, role, _ in reached}
        assert {outline for *_, outline in reached} <= {"solid"}
        unlabelled = page.locator("button, select, input, [role=listbox], [role=img]").evaluate_all(
            """all => all.filter(e => !(e.getAttribute("aria-label") || e.textContent.trim() ||
                 e.labels?.[0]?.textContent)).map(e => e.outerHTML)"""
        )
        assert unlabelled == []


def test_a_unit_colours_the_text(made, chromium):
    with opened(chromium, made["one"]) as page:
        assert not page.get_by_label("Layer", exact=True).is_visible()
        page.get_by_label("a unit", exact=True).check()
        page.get_by_label("Value", exact=True).select_option("f")
        page.get_by_label("Unit", exact=True).fill("3")
        page.get_by_label("Unit", exact=True).press("Enter")
        (_, _, name), *rows = saved(page, "Save this unit (CSV)")
        assert name == "layer1-f-3"
        values = [float(value) for *_, value in rows]
        assert 0 <= min(values) < max(values) <= 1
        tokens = page.locator(".token")
        for at in (values.index(min(values)), values.index(max(values))):
            assert float(tokens.nth(at).evaluate("e => e.style.getPropertyValue('--x')")) == (
                pytest.approx(values[at], abs=1e-3)
            )
            tokens.nth(at).click()
            shown = page.locator(".numbers dt", has_text="f 3").locator("+ dd").inner_text()
            assert float(shown) == pytest.approx(values[at], abs=6e-3)
        assert page.locator(".curve svg").is_visible()
        page.get_by_role("button", name="the next unit").click()
        assert page.get_by_label("Unit", exact=True).input_value() == "4"
        page.get_by_label("Unit", exact=True).fill("999")  # there are 8
        page.get_by_label("Unit", exact=True).press("Enter")
        assert page.get_by_label("Unit", exact=True).input_value() == "7"


def test_a_unit_that_was_found_and_a_circle_of_a_gate_colour_the_text(made, chromium):
    with opened(chromium, made["one"]) as page:
        found = page.locator(".property", has_text="place in the line").get_by_role("button").first
        name = found.inner_text()
        found.click()
        assert page.get_by_label("a unit", exact=True).is_checked()
        assert page.locator(".numbers dt").last.inner_text() == name
        circle = page.locator("figure", has_text="f (forget gate)").locator("circle").nth(2)
        circle.dispatch_event("click")
        assert page.locator(".numbers dt").last.inner_text() == "f 2"
        assert page.get_by_label("Value", exact=True).input_value() == "f"


def test_the_costliest_tokens_lead_into_the_text(made, chromium):
    with opened(chromium, made["one"]) as page:
        _, *rows = saved(page, "Save all tokens (CSV)")
        bits = [float(row[3]) for row in rows]
        page.locator(".costly button").nth(0).click()
        assert bits[chosen(page)[0]] == max(bits)
        tenth = sorted(bits)[-math.ceil(len(bits) / 10) :]
        share = 100 * sum(tenth) / sum(bits)
        assert f"holds {share:.0f} % of all bits" in page.locator("main").inner_text()


def test_the_files_have_the_numbers_of_the_page(made, chromium):
    with opened(chromium, made["one"]) as page:
        head, *rows = saved(page, "Save all tokens (CSV)")
        assert head[:6] == ["token_id", "token", "unk", "surprisal", "entropy", "rank"]
        tokens = page.locator(".token")
        assert len(rows) == tokens.count()
        mean = sum(float(row[3]) for row in rows) / len(rows)
        shown = page.locator(".facts dd").first.inner_text()
        assert float(shown) == pytest.approx(2**mean, abs=0.006)
        tokens.nth(4).click()
        assert f"{float(rows[4][3]):.2f} bits" in page.locator(".numbers").inner_text()
        assert rows[4][1] == tokens.nth(4).inner_text()
        guesses = rows[4][6:]
        words = page.locator(".guesses .word").all_inner_texts()
        assert [word.replace("↵ end of line", "<eos>") for word in words][:5] == guesses[::2]
        assert [float(p) for p in guesses[1::2]] == sorted(map(float, guesses[1::2]), reverse=True)
        near = saved(page, "Save nearest words (CSV)")
        assert near[0] == ["word", "neighbour", "cosine"]
        assert all(-1.001 <= float(cosine) <= 1.001 for *_, cosine in near[1:])
        gates = saved(page, "Save the shares of all units (CSV)")
        assert len(gates) == 1 + 3 * 8
        assert all(float(shut) + float(wide) <= 1.001 for *_, shut, wide in gates[1:])
        found = saved(page, "Save units that were found (CSV)")
        assert {row[0] for row in found[1:]} >= {"quotation marks", "year"}
        page.get_by_label("a unit", exact=True).check()
        everything = saved(page, "Save all units of this value (CSV)")
        assert len(everything) == len(rows) + 1 and len(everything[0]) == 1 + 8
        assert all(math.isfinite(float(value)) for row in everything[1:] for value in row)


def test_two_runs_show_one_token_and_their_difference(made, chromium):
    with opened(chromium, made["both"], viewport={"width": 1400, "height": 900}) as page:
        boxes = [run.bounding_box() for run in page.locator("article.run").all()]
        assert boxes[0]["x"] + boxes[0]["width"] <= boxes[1]["x"]  # side by side
        second = page.get_by_role("listbox").nth(1)
        second.locator(".token").nth(5).click()
        assert chosen(page) == [5, 5]
        first = page.locator("article.run").nth(0)
        first.get_by_label("difference", exact=True).check()
        signs = [
            "below" in (token.get_attribute("class") or "")
            for token in first.locator(".token").all()[:40]
        ]
        panels = page.locator(".token-panel")
        for i in range(0, 40, 8):
            first.locator(".token").nth(i).click()
            own, other = (
                float(panels.nth(k).locator(".numbers dd").first.inner_text().split()[0])
                for k in range(2)
            )
            assert signs[i] == (own < other) or own == pytest.approx(other, abs=0.011)
        gates = page.locator("article.run").nth(1).locator("figcaption").all_inner_texts()
        assert gates == [
            f"layer {k} (gru), {gate}"
            for k in (1, 2)
            for gate in ("r (reset gate)", "z (update gate)")
        ]


@pytest.mark.parametrize("name", ["hostile", "unknown"])
def test_a_hostile_text_is_shown_and_runs_nothing(name, made, chromium):
    with opened(chromium, made[name]) as page:
        assert page.locator("html").get_attribute("data-ran") is None
        assert page.locator("main img, main script, main svg[onload], main style").count() == 0
        shown = page.locator(".token").all_text_contents()
        for word in HOSTILE:
            if word.isprintable() or "👩" in word or "🏴" in word:
                assert word in shown
        assert "nul␀nul" in shown and "bell␇␛[31m" in shown
        assert "⟨202E⟩turned⟨202C⟩" in shown and "zero⟨200B⟩width" in shown
        for word in (HOSTILE[0], HOSTILE[-1], "שלום"):
            at = shown.index(word)
            page.locator(".token").nth(at).click()
            assert page.locator(".chosen .word").inner_text() == word
        _, *rows = saved(page, "Save all tokens (CSV)")
        assert {row[1] for row in rows} - {"<eos>", "."} == set(HOSTILE)
        note = page.locator(".token-panel .note", has_text="does not know it")
        assert note.count() == (name == "unknown")
        assert page.locator("html").get_attribute("data-ran") is None


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("name", ["one", "both", "chars", "hostile"])
def test_no_width_has_to_be_moved_sideways(name, width, made, chromium):
    size = {"width": width, "height": 800}
    with opened(chromium, made[name], viewport=size) as page:
        for kind in ("surprisal", "a unit"):
            page.get_by_label(kind, exact=True).first.check()
            over = page.evaluate(
                """() => [...document.querySelectorAll("body *")]
                  .filter(e => !e.closest(".wide, .unseen, svg, .choices"))
                  .filter(e => e.getBoundingClientRect().right > innerWidth + 1)
                  .map(e => e.outerHTML.slice(0, 120))"""
            )
            assert over == []
            assert page.evaluate("document.documentElement.scrollWidth") <= width


def contrast(*colours):
    """Of two colours, by WCAG 2."""
    lights = []
    for colour in colours:
        channels = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in colour]
        lights.append(0.2126 * channels[0] + 0.7152 * channels[1] + 0.0722 * channels[2])
    return (max(lights) + 0.05) / (min(lights) + 0.05)


AS_DRAWN = """e => {
  const canvas = new OffscreenCanvas(1, 1).getContext("2d", { willReadFrequently: true });
  return ["backgroundColor", "color"].map((name) => {
    canvas.fillStyle = getComputedStyle(e)[name];
    canvas.fillRect(0, 0, 1, 1);
    return [...canvas.getImageData(0, 0, 1, 1).data].slice(0, 3).map((c) => c / 255);
  });
}"""


@pytest.mark.parametrize("system", ["light", "dark"])
def test_light_and_dark_follow_the_system_or_the_reader_and_can_be_read(system, made, chromium):
    with opened(chromium, made["one"], color_scheme=system) as page:
        body = page.locator("body")
        dark = {"light": False, "dark": True}
        for choice in ("as the system", "dark", "light"):
            page.get_by_label(choice, exact=True).check()
            paper, _ = body.evaluate(AS_DRAWN)
            assert (sum(paper) < 1.5) == dark.get(choice, system == "dark")
            for kind, value in (("surprisal", None), ("a unit", "h"), ("a unit", "f")):
                page.get_by_label(kind, exact=True).check()
                if value:
                    page.get_by_label("Value", exact=True).select_option(value)
                token = page.locator(".token:not(.end)").first
                for below in (False, True):
                    token.evaluate(
                        """(e, below) => {
                          e.style.setProperty("--x", "1");
                          e.classList.toggle("below", below);
                        }""",
                        below,
                    )
                    assert contrast(*token.evaluate(AS_DRAWN)) >= 4.5
            assert contrast(*page.locator("button.save").first.evaluate(AS_DRAWN)) >= 4.5


def test_characters_keep_their_blanks_and_lines(made, chromium):
    with opened(chromium, made["chars"]) as page:
        shown = "".join(page.locator(".token").all_text_contents()).replace("↵", "\n")
        assert shown in TEXT * 60
        page.locator(".token").nth(shown.index(" ")).click()
        assert page.locator(".chosen .word").inner_text() == "␣ blank"
        assert page.locator(".line").count() == shown.count("\n") + (shown[-1] != "\n")
