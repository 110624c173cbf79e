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
    """A decorator: a call whose arguments are not in the signature is refused."""
    signature = parsed(text)
    kinds = [parameter.kind for parameter in signature.parameters.values()]
    names = frozenset(signature.parameters)
    takes_any = inspect.Parameter.VAR_POSITIONAL in kinds
    most = kinds.count(inspect.Parameter.POSITIONAL_OR_KEYWORD)

    def decorate(function):
        @functools.wraps(function)
        def call(*args, **named):
            if not names.issuperset(named) or (len(args) > most and not takes_any):
                wrong = sorted(set(named) - names) or f"{len(args)} arguments"
                raise TypeError(f"cupy.{function.__name__}({text}): got {wrong}")
            return function(*args, **named)

        return call

    return decorate
