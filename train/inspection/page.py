"""One file of HTML that holds its style, its script and its data, and runs nothing else.

A policy in the page's head allows the one style and the one script, by their hashes, and forbids
everything else: network, images, frames, forms, and whatever markup could smuggle in. The data
stand in an element that no browser runs, with every "<" escaped, so that no text can close it.
"""

from __future__ import annotations

import base64
import hashlib
import html
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

__all__ = ["SCRIPTS", "page"]

FOLDER = Path(__file__).parent
SCRIPTS = (  # one script, in this order
    "format.js",
    "elements.js",
    "data.js",
    "save.js",
    "colours.js",
    "text.js",
    "token.js",
    "cost.js",
    "units.js",
    "gates.js",
    "page.js",
)
HOLE = re.compile(r"\{\{(\w+)\}\}")


def page(title: str, data: Mapping[str, Any]) -> bytes:
    """The page, ASCII alone but for its own style and script.

    Args:
        title: of the window.
        data: what the script reads; JSON without NaN or infinity.

    Raises:
        ValueError: for a number that is not finite.
    """
    style = _source("page.css")
    script = "\n".join(map(_source, SCRIPTS))
    policy = (
        f"default-src 'none'; script-src {_hash(script)}; style-src {_hash(style)}; "
        "base-uri 'none'; form-action 'none'"
    )
    parts = {
        "title": html.escape(title),
        "policy": html.escape(policy, quote=False),
        "style": style,
        "data": json.dumps(data, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c"),
        "script": script,
    }
    return HOLE.sub(lambda hole: parts[hole[1]], _source("page.html")).encode("utf-8")


def _source(name: str) -> str:
    return (FOLDER / name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    """What allows an element with that text in a policy."""
    digest = hashlib.sha256(text.encode("utf-8")).digest()
    return f"'sha256-{base64.b64encode(digest).decode('ascii')}'"
