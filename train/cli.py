"""From a dataclass of options to a running command: help, errors a person can read, exit codes."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TypeVar

import numpy
import tyro

from common import config
from common.np import to_gpu

Options = TypeVar("Options")


def run_command(main: Callable[[Options], None], options: type[Options]) -> None:
    """Parse the command line into ``options`` and call ``main`` with it.

    What a user can cause ends as one line on stderr and exit code 1; an unknown option as tyro's
    message and exit code 2.
    """
    spec = sys.modules["__main__"].__spec__
    parsed = tyro.cli(options, prog=None if spec is None else f"python -m {spec.name}")
    try:
        if getattr(parsed, "gpu", False):
            config.GPU = True
        if config.GPU:
            to_gpu(numpy.zeros(1))  # say now what is missing, not after the corpus is read
        main(parsed)
    except (ValueError, RuntimeError, OSError) as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit(130)
