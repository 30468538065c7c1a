"""A GPU behind the names of the simulated device, so that one test is for both."""

from types import SimpleNamespace
from typing import Any

import numpy as np

from bnengine.backend import Backend, get_backend
from tests.support import require

STATE = SimpleNamespace(schedule="forward")


def backend() -> Backend:
    """CuPy on the GPU."""
    return get_backend("cupy")


def on_device(x: np.ndarray) -> Any:
    return require("cupy").asarray(x)


def fresh(shape: Any, dtype: Any = float) -> Any:
    return require("cupy").empty(shape, dtype=dtype)


def off_device(x: Any) -> Any:
    """NumPy's arrays for the device's, in any structure of tuples."""
    if isinstance(x, tuple) and hasattr(x, "_fields"):
        return type(x)(*map(off_device, x))
    return x.get() if hasattr(x, "get") else x
