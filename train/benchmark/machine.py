"""The machine that is measured."""

from __future__ import annotations

import platform
from pathlib import Path

import numpy

from common.kernels.threads import usable_cores
from train.run.folder import version_of

__all__ = ["describe_machine"]


def describe_machine(*packages: str) -> dict[str, str | int]:
    """CPU, cores, operating system and the versions of what was measured, ``packages`` as well."""
    blas = numpy.show_config(mode="dicts")["Build Dependencies"]["blas"]
    return {
        "cpu": _cpu_model(),
        "cores": len(usable_cores()),
        "system": platform.platform(),
        "python": platform.python_version(),
        "numpy": numpy.__version__,
        "blas": f"{blas['name']} {blas['version']}",
        **{name: version_of(name) for name in (*packages, "time-layers")},
    }


def _cpu_model() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()
