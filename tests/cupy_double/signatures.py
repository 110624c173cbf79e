"""What CuPy has, as ``read_wheel`` found it, in a form that calls can be held against."""

import functools
import inspect
import json
from pathlib import Path

FOUND = json.loads((Path(__file__).parent / "signatures.json").read_text(encoding="utf-8"))
CUPY, NDARRAY = FOUND["cupy"], FOUND["ndarray"]


@functools.cache
def parsed(text):
    """An ``inspect.Signature`` of ``a, axis=, *, dtype=``."""
    Parameter = inspect.Parameter
    kind, parameters = Parameter.POSITIONAL_OR_KEYWORD, []
    for word in filter(None, text.split(", ")):
        if word == "*":
            kind = Parameter.KEYWORD_ONLY
            continue
        name, has_default, _ = word.partition("=")
        default = None if has_default else Parameter.empty
        if name.startswith("**"):
            parameters.append(Parameter(name[2:], Parameter.VAR_KEYWORD))
        elif name.startswith("*"):
            parameters.append(Parameter(name[1:], Parameter.VAR_POSITIONAL))
            kind = Parameter.KEYWORD_ONLY
        else:
            parameters.append(Parameter(name, kind, default=default))
    return inspect.Signature(parameters)


def held_to(text):
    """A decorator: the call must fit the signature; the function gets what CuPy would get."""
    signature = parsed(text)

    def decorate(function):
        @functools.wraps(function)
        def call(*args, **named):
            try:
                bound = signature.bind(*args, **named)
            except TypeError as error:
                raise TypeError(f"cupy.{function.__name__}({text}): {error}") from None
            return function(*bound.args, **bound.kwargs)

        return call

    return decorate
