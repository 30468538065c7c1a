"""dropout and dropout_backward, with the random bits of every other library."""

import numpy as np

from ... import ops
from ..._typing import Array
from ...arrays.random import split_seed
from ...ops.dropout import Dropped
from ...runtime.memory import Outputs
from ._launch import flags, flat_grid, indices, kernel, output, ready, reals, vector_of, version
from ._launch import storage as storage_of

FILE, FEATURES = "dropout.cu", 4  # a thread has the four features of one counter


@version(ops.dropout)
def dropout(to: Outputs, x: Array, step: Array, samples: Array, seed: int, layer: int, rate: float) -> Dropped:
    """y = x / (1 - rate) where kept, else 0; and where it was kept."""
    x, step, samples = ready(to, x), ready(to, step, np.int64), ready(to, samples, np.int64)
    y, keep = output(to, "out", x.shape, x.dtype, x), output(to, "keep", x.shape, np.bool_, x)
    rows, features = int(x.shape[0]), x.size // int(x.shape[0])
    aligned = vector_of(x, None, x, y, keep) > 1 and features % FEATURES == 0
    threads = rows * -(-features // FEATURES)
    name = storage_of(x), FEATURES if aligned else 1
    run = kernel(x, FILE, "dropout", *name, grid=flat_grid(x, threads))
    threshold = round(rate * 2**32)
    scalars = (*indices(rows, features, *split_seed(seed), layer, threshold), *reals(rate))
    to.launch(run, whole=(step,), reads=(x, samples), writes=(y, keep), scalars=scalars)
    return Dropped(y, keep)


@version(ops.dropout_backward)
def dropout_backward(to: Outputs, dy: Array, keep: Array, rate: float) -> Array:
    """dx = dy / (1 - rate) where kept, else 0."""
    dy, keep = ready(to, dy), ready(to, keep, np.bool_)
    dx = output(to, "out", dy.shape, dy.dtype, dy)
    vector = vector_of(dy, None, dy, keep, dx)
    run = kernel(dy, FILE, "dropout_backward", storage_of(dy), vector, grid=flat_grid(dy, dy.size, vector))
    scalars = (*indices(dy.size), *reals(rate), *flags(to.adds("out")))
    to.launch(run, reads=(dy, keep), writes=(dx,), scalars=scalars)
    return dx
