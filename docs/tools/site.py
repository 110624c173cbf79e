"""What the site needs beyond Markdown: formulas without a script, and nothing from elsewhere.

``mkdocs`` calls these functions by their names (``hooks`` in ``mkdocs.yml``).
"""

from __future__ import annotations

import html
import re
import shutil
from pathlib import Path
from typing import Any

import ziamath
from latex2mathml.converter import convert
from mkdocs.exceptions import PluginError

FONT = "STIXTwoMath-Regular.ttf"  # the package that draws formulas has it; here browsers draw them
FORMULA = re.compile(r'<(span|div) class="arithmatex">\\([(\[])(.*?)\\[)\]]</\1>', re.DOTALL)
ROLE = re.compile(r":(?:class|func|meth):(?=<code>|<a |<autoref )")
# What a browser fetches by itself: not a link that a reader may follow.
LOADS = {
    ".html": r"""<(?:script|img|iframe|source)[^>]*?\ssrc=["']?(?:https?:)?//[^"'>\s]+"""
    r"""|<link[^>]*?\shref=["']?(?:https?:)?//[^"'>\s]+""",
    ".css": r"""(?:url\(|@import)\s*["']?(?:https?:)?//[^"')\s]+""",
}
# Searching a page that was opened from a disk needs a worker in a frame; the theme would fetch it.
SHIM = re.compile(r'<script src="https://[^"]*iframe-worker[^"]*"></script>')


def on_page_content(content: str, page: Any, **_: Any) -> str:
    """Turn every formula into MathML, which browsers draw themselves."""

    def mathml(match: re.Match[str]) -> str:
        display = "block" if match[2] == "[" else "inline"
        formula = html.unescape(match[3])
        try:
            made = convert(formula, display=display)
        except Exception as error:
            raise PluginError(f"{page.file.src_uri}: formula {formula!r}: {error!r}") from error
        if "\\" in made:  # a command that the converter does not know is left as it is
            raise PluginError(f"{page.file.src_uri}: formula {formula!r} became {made!r}")
        return made

    return ROLE.sub("", FORMULA.sub(mathml, content))


def on_post_page(output: str, page: Any, **_: Any) -> str:
    """Search by the frame that lies in the site."""
    root = "../" * page.file.dest_uri.count("/")
    return SHIM.sub(f'<script src="{root}assets/search-frame.js"></script>', output)


def on_post_template(output_content: str, **_: Any) -> str:
    """The page for what is not found needs no search."""
    return SHIM.sub("", output_content)


def on_post_build(config: Any) -> None:
    """Add the font of the formulas; refuse a site that would fetch anything from another place."""
    shutil.copy(Path(ziamath.__file__).parent / "fonts" / FONT, Path(config.site_dir) / "assets")
    found = []
    for path in Path(config.site_dir).rglob("*"):
        if pattern := LOADS.get(path.suffix):
            loads = re.findall(pattern, path.read_text(encoding="utf-8"))
            found += [f"{path}: {load}" for load in loads]
    if found:
        raise PluginError("the site fetches from elsewhere:\n" + "\n".join(found))
