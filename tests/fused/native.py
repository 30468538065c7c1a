"""NumPy's arrays under the names of the simulated device, so that one test is for both."""

from typing import Any

import numpy as np

from bnengine.arrays.backend import Backend, get_backend


def backend() -> Backend:
    """NumPy, whose arrays native kernels take."""
    return get_backend("numpy")


def on_device(x: np.ndarray) -> np.ndarray:
    return x.copy(order="K")


def fresh(shape: Any, dtype: Any = float) -> np.ndarray:
    return np.empty(shape, dtype)


def off_device(x: Any) -> Any:
    return x
