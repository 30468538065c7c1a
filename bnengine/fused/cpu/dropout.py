"""dropout and dropout_backward, with the random bits of every other library."""

import numpy as np

from ... import ops
from ..._typing import Array
from ...arrays.random import split_seed
from ...ops.dropout import Dropped
from ...runtime.memory import Outputs
from ._launch import Kernel, cut, output, ready, version

DROPOUT = Kernel(
    "dropout", whole="step:index samples:index", reads="x", writes="y keep:bool",
    integers="rows features seed_low seed_high layer threshold", flags="by_columns", reals="rate",
)  # fmt: skip
DROPOUT_BACKWARD = Kernel(
    "dropout_backward", reads="dy keep:bool", writes="dx", integers="rows features", flags="by_columns adds",
    reals="rate",
)  # fmt: skip


def _by_samples(x: Array) -> Array:
    """x as (samples, features)."""
    return x.reshape(x.shape[0], -1)


@version(ops.dropout)
def dropout(to: Outputs, x: Array, step: Array, samples: Array, seed: int, layer: int, rate: float) -> Dropped:
    """y = x / (1 - rate) where kept, else 0; and where it was kept."""
    x, step, samples = ready(to, x), ready(to, step, np.int64), ready(to, samples, np.int64)
    y, keep = output(to, "out", x.shape, x.dtype, x), output(to, "keep", x.shape, np.bool_, x)
    rows_x = _by_samples(x)
    along = cut(rows_x.shape, x.itemsize)  # units of it are multiples of the four features of a counter
    (rows, features), (low, high) = rows_x.shape, split_seed(seed)
    DROPOUT(
        to, x, along=along, step=step, samples=samples, x=rows_x, y=_by_samples(y), keep=_by_samples(keep), rows=rows,
        features=features, by_columns=along.by_columns, seed_low=low, seed_high=high, layer=layer,
        threshold=round(rate * 2**32), rate=rate,
    )  # fmt: skip
    return Dropped(y, keep)


@version(ops.dropout_backward)
def dropout_backward(to: Outputs, dy: Array, keep: Array, rate: float) -> Array:
    """dx = dy / (1 - rate) where kept, else 0."""
    dy, keep = ready(to, dy), ready(to, keep, np.bool_)
    dx = output(to, "out", dy.shape, dy.dtype, dy)
    rows_dy = _by_samples(dy)
    (rows, features), along = rows_dy.shape, cut(rows_dy.shape, dy.itemsize)
    DROPOUT_BACKWARD(
        to, dy, along=along, dy=rows_dy, keep=_by_samples(keep), dx=_by_samples(dx), rows=rows, features=features,
        by_columns=along.by_columns, adds=to.adds("out"), rate=rate,
    )  # fmt: skip
    return dx
