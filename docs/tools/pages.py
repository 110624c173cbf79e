"""The blocks of code on a page of the guide.

```python                     is run, in order, in one namespace for the page
```python title="common/..."  is quoted from that file of the project
```python title="mine.py"     is a file that the reader writes; so are blocks of text
```console                    is run by a shell, in the reader's folder: ``$ command``, its output
```bash                       is read, not run: it takes long, or needs a machine
```output                     is what the block of Python before it prints
"""

from __future__ import annotations

import re
from dataclasses import dataclass

__all__ = ["Block", "blocks"]

FENCE = re.compile(r"^```(\S+)([^\n]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Block:
    """A fenced block.

    Attributes:
        kind: its language.
        title: the file that it is, or is quoted from; or "".
        text: what stands inside.
        line: the number of the line above it.
        span: where it begins and ends in the page.
    """

    kind: str
    title: str
    text: str
    line: int
    span: tuple[int, int]


def blocks(page: str) -> list[Block]:
    """All blocks of a page, in order."""
    found = []
    for match in FENCE.finditer(page):
        title = re.search(r'title="([^"]*)"', match[2])
        line = page.count("\n", 0, match.start()) + 1
        found.append(Block(match[1], title[1] if title else "", match[3], line, match.span()))
    return found
