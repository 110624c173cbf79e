"""Writes ``signatures.json``: the names, signatures and dtypes that a CuPy wheel has.

CuPy imports without a GPU, so this needs nothing but the wheel, in an environment of its own:

    python -m venv /tmp/cupy && /tmp/cupy/bin/pip install cupy-cuda13x==14.2.0
    /tmp/cupy/bin/python tests/cupy_double/read_wheel.py

A function has the text of its signature with its defaults left out, ``a, axis=, out=``; a ufunc
its loops in the order in which CuPy tries them, ``ff->f dd->d``; what is compiled tells its
signature in the first line of its documentation.
"""

import inspect
import json
import re
import warnings
from pathlib import Path

FILE = Path(__file__).parent / "signatures.json"


def of_signature(function):
    """``a, axis=, *, dtype=`` of a Python function."""
    words, star = [], False
    for parameter in inspect.signature(function).parameters.values():
        if parameter.kind is parameter.KEYWORD_ONLY and not star:
            words.append("*")
        star = star or parameter.kind in (parameter.KEYWORD_ONLY, parameter.VAR_POSITIONAL)
        mark = {parameter.VAR_POSITIONAL: "*", parameter.VAR_KEYWORD: "**"}.get(parameter.kind, "")
        has_default = parameter.default is not parameter.empty
        words.append(mark + parameter.name + "=" * has_default)
    return ", ".join(words)


def of_documentation(function):
    """The same of a compiled function: ``_ndarray_base.sum(self, axis=None, out=None)``."""
    first = (function.__doc__ or "").split("\n")[0]
    found = re.match(r"[\w.]+\((.*)\)", first)
    if found is None:
        return None
    words = []
    for word in filter(None, (part.strip() for part in found[1].split(","))):
        name, has_default, _ = word.partition("=")
        words.append(name.split(" ")[-1] + has_default)  # a type may stand before the name
    return ", ".join(words)


def described(value):
    """What ``signatures.json`` says of a name of CuPy or of its array."""
    types = getattr(value, "types", None)
    if isinstance(types, list):
        return {"loops": " ".join(types), "inputs": value.nin}
    if callable(value) and not isinstance(value, type):
        try:
            return of_signature(value)
        except (TypeError, ValueError):
            return of_documentation(value)
    return None


def main():
    """Read the CuPy of this environment."""
    warnings.simplefilter("ignore")  # there is no device
    import cupy

    found = {
        "version": cupy.__version__,
        "cupy": {
            name: described(getattr(cupy, name)) for name in dir(cupy) if not name.startswith("_")
        },
        "ndarray": {
            name: described(getattr(cupy.ndarray, name))
            for name in dir(cupy.ndarray)
            if not name.startswith("_")
        },
    }
    lines = json.dumps(found, indent=0, sort_keys=True)
    FILE.write_text(lines + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
