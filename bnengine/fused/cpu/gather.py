"""gather: a micro-batch out of the data in memory, all its arrays in one launch."""

from math import prod

import numpy as np

from ... import ops
from ..._typing import Array
from ...ops.gather import Gathered
from ...runtime.memory import Outputs
from ...runtime.plan import ROWS
from .._launch import absent
from ._launch import APART, cut_rows, kernel, output, ready, version


@version(ops.gather)
def gather(
    to: Outputs, x: Array, target: Array, weights: Array | None, samples: Array, normalisers: Array, order: Array,
    cursor: Array, rows: int, offset: int
) -> Gathered:  # fmt: skip
    """Rows of bytes. Those of x may lie apart, as rows of a larger array do: a data set is not copied for that."""
    classes = target.dtype.kind in "iu"
    x = x if _in_rows(x) else ready(to, x)
    samples, order, cursor = (ready(to, a, np.int64) for a in (samples, order, cursor))
    target = ready(to, target, np.int64 if classes else x.dtype)
    weights, normalisers = ready(to, weights, x.dtype), ready(to, normalisers, x.dtype)
    if weights is None:
        absent(to, "weights")
    given = {"x": x, "target": target, "weights": weights, "samples": samples}
    taken = {
        field: None if a is None else output(to, field, (rows, *a.shape[1:]), a.dtype, a) for field, a in given.items()
    }
    out = Gathered(**taken, normaliser=output(to, "normaliser", (1,), normalisers.dtype, x))
    sizes = [0 if a is None else prod(a.shape[1:]) * a.itemsize for a in (x, target, weights)]
    along = cut_rows(rows, max(1, sum(sizes)), APART)
    to.launch(
        kernel("gather", cut=along),
        whole=(*given.values(), normalisers, order, cursor),
        writes=out,
        scalars=(rows, *sizes, normalisers.itemsize, x.strides[0], offset),
        split=ROWS,
    )
    return out


def _in_rows(x: Array) -> bool:
    """Whether each row is contiguous, and lies behind the one before."""
    size, strides = x.itemsize, x.strides
    for n, stride in zip(reversed(x.shape[1:]), reversed(strides[1:]), strict=True):
        if n > 1 and stride != size:
            return False
        size *= n
    return bool(x.flags.aligned and strides[0] >= size)
