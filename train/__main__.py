"""List the commands.

python -m train
"""

from __future__ import annotations

import ast
from pathlib import Path


def commands() -> dict[str, str]:
    """The first line of what each command says about itself, by its name; nothing is imported."""
    found = {}
    for path in sorted(Path(__file__).parent.iterdir()):
        file = path / "__main__.py" if path.is_dir() else path
        if file.suffix == ".py" and file.exists() and not path.name.startswith("__"):
            text = ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) or ""
            about, _, rest = text.partition("\n")
            if f"python -m train.{path.stem}" in rest:  # not a module that commands share
                found[path.stem] = about
    return found


if __name__ == "__main__":
    for name, about in commands().items():
        print(f"python -m train.{name:<19} {about}")
    print("\nEach explains itself: python -m train.NAME --help")
