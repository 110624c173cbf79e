"""The switch between NumPy (CPU) and CuPy (GPU).

``config.GPU = True`` before a model is built, the environment variable ``GPU=1``, or
``--gpu`` on any training script make ``common.np.np`` stand for CuPy.
"""

import os


def _flag(name: str) -> bool:
    text = os.environ.get(name, "").strip().lower()
    if text in ("", "0", "false", "no", "off"):
        return False
    if text in ("1", "true", "yes", "on"):
        return True
    raise ValueError(f"environment variable {name}: expected 1 or 0, got {text!r}")


GPU: bool = _flag("GPU")
