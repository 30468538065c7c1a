"""Fused versions of ops, one folder for each kind of device; the ops name them and import them when an array fits.

Besides ops, a folder may offer `replayer(plan)`, which runs a recorded step as one, `Uploads`, which bring a step's
data to the device while it computes, and `timing`, the device's clock and how much of its memory is taken.
"""

import importlib
from typing import Any

_FOLDERS = {"cupy": "cuda"}


def offered(backend: str, what: str) -> Any:
    """What the fused code for arrays of a backend offers by this name, None if it does not, or if there is none."""
    folder = _FOLDERS.get(backend)
    return None if folder is None else getattr(importlib.import_module(f"{__name__}.{folder}"), what, None)


def native() -> Any:
    """The library of native kernels: `available()`, `isa()`, its functions; imported when it is asked for."""
    return importlib.import_module(f"{__name__}.cpu._load")
