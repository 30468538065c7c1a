"""dropout and dropout_backward, with the random bits of every other library."""

import numpy as np

from ... import ops
from ..._typing import Array
from ...arrays.random import split_seed
from ...ops.dropout import Dropped
from ...runtime.memory import Outputs
from ._launch import cut, kernel, output, ready, version


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
    scalars = (*rows_x.shape, along.by_columns, *split_seed(seed), layer, round(rate * 2**32), float(rate))
    to.launch(
        kernel("dropout", x, cut=along),
        whole=(step, samples),
        reads=(rows_x,),
        writes=(_by_samples(y), _by_samples(keep)),
        scalars=scalars,
        split=along.split,
    )
    return Dropped(y, keep)


@version(ops.dropout_backward)
def dropout_backward(to: Outputs, dy: Array, keep: Array, rate: float) -> Array:
    """dx = dy / (1 - rate) where kept, else 0."""
    dy, keep = ready(to, dy), ready(to, keep, np.bool_)
    dx = output(to, "out", dy.shape, dy.dtype, dy)
    rows_dy = _by_samples(dy)
    along = cut(rows_dy.shape, dy.itemsize)
    to.launch(
        kernel("dropout_backward", dy, cut=along),
        reads=(rows_dy, _by_samples(keep)),
        writes=(_by_samples(dx),),
        scalars=(*rows_dy.shape, along.by_columns, to.adds("out"), float(rate)),
        split=along.split,
    )
    return dx
