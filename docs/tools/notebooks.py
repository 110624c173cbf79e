"""Write the lessons as notebooks: prose as it stands, code to run, no output yet.

python -m docs.tools.notebooks
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from docs.tools.pages import blocks

LESSONS = Path(__file__).parents[1] / "lessons"
NOTEBOOKS = LESSONS.parent / "notebooks"


def notebook(page: str) -> str:
    """A lesson as a notebook: one cell for each block that is run, and for the prose between."""
    cells: list[dict[str, Any]] = []
    at = 0

    def add(kind: str, text: str, **more: Any) -> None:
        if text := text.strip():
            source = text.splitlines(keepends=True)
            name = f"cell-{len(cells)}"
            cells.append({"cell_type": kind, "id": name, "metadata": {}, **more, "source": source})

    for block in blocks(page):
        is_run = block.kind == "python" and not block.title
        if not is_run and block.kind != "output":
            continue  # a quotation stays in the prose
        start, end = block.span
        add("markdown", page[at:start])
        if is_run:
            add("code", block.text, execution_count=None, outputs=[])
        at = end
    add("markdown", page[at:])
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    metadata = {"kernelspec": kernel, "language_info": {"name": "python"}}
    whole = {"cells": cells, "metadata": metadata, "nbformat": 4, "nbformat_minor": 5}
    return json.dumps(whole, indent=1, ensure_ascii=False) + "\n"


def main() -> None:
    """Write all notebooks."""
    NOTEBOOKS.mkdir(exist_ok=True)
    for lesson in sorted(LESSONS.glob("*.md")):
        text = notebook(lesson.read_text(encoding="utf-8"))
        (NOTEBOOKS / f"{lesson.stem}.ipynb").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
