"""One file, which runs its own script and nothing else."""

import base64
import hashlib
import json
import re
from html.parser import HTMLParser

import pytest

from train.inspection.page import FOLDER, SCRIPTS, page

FETCHES = r"https?://(?!www\.w3\.org/2000/svg)|url\(|@import|import\(|fetch\("
MAKES_MARKUP = r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\("
HOSTILE = "</script><script>alert(1)</script><!--<img src=x onerror=alert(1)>{{script}}\u2028\0"


class Elements(HTMLParser):
    """Every element of a page, with its attributes and the text in it."""

    def __init__(self, text):
        super().__init__()
        self.found, self.inside = [], False
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attributes):
        self.found.append([tag, dict(attributes), ""])
        self.inside = True

    def handle_endtag(self, tag):
        self.inside = False  # what comes now is between elements

    def handle_data(self, data):
        if self.inside:
            self.found[-1][2] += data

    def all(self, tag):
        return [(attributes, text) for name, attributes, text in self.found if name == tag]


def elements(title="title", data=None):
    return Elements(page(title, data or {}).decode("utf-8"))


def test_hostile_data_stay_data():
    found = elements(HOSTILE, {"words": [HOSTILE]})
    scripts = found.all("script")
    assert [attributes["type"] for attributes, _ in scripts] == ["application/json", "module"]
    assert json.loads(scripts[0][1]) == {"words": [HOSTILE]}
    assert "<" not in scripts[0][1] and scripts[0][1].isascii()
    assert {name for name, *_ in found.found} <= {
        *("html", "head", "meta", "title", "style", "body", "main", "noscript", "p", "script")
    }
    ((_, title),) = found.all("title")
    assert title.rstrip("\n") == HOSTILE


def test_the_policy_allows_the_pages_own_style_and_script_alone():
    found = elements()
    (policy,) = [a["content"] for a, _ in found.all("meta") if "http-equiv" in a]
    rules = dict(rule.split(" ", 1) for rule in policy.split("; "))
    for kind, (_, text) in (
        ("script-src", found.all("script")[1]),
        ("style-src", found.all("style")[0]),
    ):
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert rules.pop(kind) == f"'sha256-{digest}'"
    assert rules == {"default-src": "'none'", "base-uri": "'none'", "form-action": "'none'"}


def test_nothing_is_fetched_and_no_markup_is_made_of_text():
    sources = {path.name: path.read_text(encoding="utf-8") for path in FOLDER.glob("*.[jch]*s*")}
    assert set(SCRIPTS) | {"page.css"} <= set(sources)
    for name, text in sources.items():
        assert not re.search(
            r"https?://(?!www\.w3\.org/2000/svg)|url\(|@import|import\(|fetch\(", text
        ), name
        assert not re.search(
            r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(", text
        ), name
        assert "</script" not in text and "</style" not in text


def test_every_script_is_part_of_the_page_and_every_file_is_used():
    assert {path.name for path in FOLDER.glob("*.js")} == set(SCRIPTS)


def test_a_number_that_is_none_is_refused():
    with pytest.raises(ValueError, match="not JSON compliant"):
        page("title", {"x": float("nan")})
