"""dropout and dropout_backward, with the random bits of every other library."""

import numpy as np

from ... import ops
from ..._typing import Array
from ...arrays.random import split_seed
from ...ops.dropout import Dropped
from ...runtime.memory import Outputs
from ._launch import Kernel, flat_grid, output, ready, vector_of, version
from ._launch import storage as storage_of

FILE, FEATURES = "dropout.cu", 4  # a thread has the four features of one counter
DROPOUT = Kernel(
    "dropout", file=FILE, whole="step:index", reads="x samples:index", writes="y keep:bool",
    integers="rows features seed_low seed_high layer threshold", reals="rate",
)  # fmt: skip
DROPOUT_BACKWARD = Kernel(
    "dropout_backward", file=FILE, reads="dy keep:bool", writes="dx", integers="size", reals="rate", flags="adds"
)


@version(ops.dropout)
def dropout(to: Outputs, x: Array, step: Array, samples: Array, seed: int, layer: int, rate: float) -> Dropped:
    """y = x / (1 - rate) where kept, else 0; and where it was kept."""
    x, step, samples = ready(to, x), ready(to, step, np.int64), ready(to, samples, np.int64)
    y, keep = output(to, "out", x.shape, x.dtype, x), output(to, "keep", x.shape, np.bool_, x)
    rows, features = int(x.shape[0]), x.size // int(x.shape[0])
    aligned = vector_of(x, None, x, y, keep) > 1 and features % FEATURES == 0
    threads = rows * -(-features // FEATURES)
    name = storage_of(x), FEATURES if aligned else 1
    low, high = split_seed(seed)
    DROPOUT(
        to, x, *name, grid=flat_grid(x, threads), step=step, x=x, samples=samples, y=y, keep=keep, rows=rows,
        features=features, seed_low=low, seed_high=high, layer=layer, threshold=round(rate * 2**32), rate=rate,
    )  # fmt: skip
    return Dropped(y, keep)


@version(ops.dropout_backward)
def dropout_backward(to: Outputs, dy: Array, keep: Array, rate: float) -> Array:
    """dx = dy / (1 - rate) where kept, else 0."""
    dy, keep = ready(to, dy), ready(to, keep, np.bool_)
    dx = output(to, "out", dy.shape, dy.dtype, dy)
    vector = vector_of(dy, None, dy, keep, dx)
    name, grid = (storage_of(dy), vector), flat_grid(dy, dy.size, vector)
    arrays, scalars = {"dy": dy, "keep": keep, "dx": dx}, {"size": dy.size, "rate": rate, "adds": to.adds("out")}
    DROPOUT_BACKWARD(to, dy, *name, grid=grid, **arrays, **scalars)
    return dx
