"""A GPU under the names of the simulated device, so that one test is for both."""

from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import numpy as np

from bnengine.arrays.backend import Backend, get_backend
from tests.support import require

STATE = SimpleNamespace(schedule="forward")


def backend() -> Backend:
    """CuPy on the GPU."""
    return get_backend("cupy")


def on_device(x: np.ndarray) -> Any:
    return require("cupy").asarray(x)


@contextmanager
def counted_mallocs() -> Iterator[Any]:
    """Inside, the given object's `count` counts allocations, those of the pool too."""
    counted = SimpleNamespace(count=0)

    class Hook(require("cupy").cuda.MemoryHook):  # type: ignore[misc]
        name = "counted_mallocs"

        def malloc_preprocess(self, **_: Any) -> None:
            counted.count += 1

    with Hook():
        yield counted


def fresh(shape: Any, dtype: Any = float) -> Any:
    return require("cupy").empty(shape, dtype=dtype)


def off_device(x: Any) -> Any:
    """NumPy's arrays for the device's, in any structure of tuples."""
    if isinstance(x, tuple) and hasattr(x, "_fields"):
        return type(x)(*map(off_device, x))
    return x.get() if hasattr(x, "get") else x
