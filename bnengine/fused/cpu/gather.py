"""gather: a micro-batch out of the data in memory, all its arrays in one launch."""

from math import prod
from typing import Any

import numpy as np

from ... import ops
from ..._typing import Array
from ...ops.gather import Gathered
from ...runtime.memory import Outputs
from .._launch import gathered
from ._launch import APART, Kernel, cut_rows, output, ready, version

BYTES = ("bytes_x", "bytes_target", "bytes_weights", "bytes_divisor", "bytes_between")
GATHERED: dict[str, str] = {
    "writes": "to_x:char to_target:char to_weights:char to_samples:index to_divisor:char",
    "integers": f"{' '.join(BYTES)} offset",
}
DATA = "x:char target:char weights:char samples:index divisors:char order:index cursor:index"
GATHER = Kernel("gather", whole=DATA, **GATHERED)


def into(out: Gathered) -> dict[str, Any]:
    """The outputs as the kernels name them."""
    return {f"to_{field}": array for field, array in out._asdict().items()}


@version(ops.gather)
def gather(
    to: Outputs, x: Array, target: Array, weights: Array | None, samples: Array, divisors: Array, order: Array,
    cursor: Array, rows: int, offset: int
) -> Gathered:  # fmt: skip
    """Rows of bytes. Those of x may lie apart, as rows of a larger array do: a data set is not copied for that."""
    classes = target.dtype.kind in "iu"
    x = x if _in_rows(x) else ready(to, x)
    samples, order, cursor = (ready(to, a, np.int64) for a in (samples, order, cursor))
    target = ready(to, target, np.int64 if classes else x.dtype)
    weights, divisors = ready(to, weights, x.dtype), ready(to, divisors, x.dtype)
    given = {"x": x, "target": target, "weights": weights, "samples": samples}
    out = gathered(to, output, given, divisors, rows, x, x.dtype)
    rows_of = [0 if a is None else prod(a.shape[1:]) * a.itemsize for a in (x, target, weights)]
    along = cut_rows(rows, max(1, sum(rows_of)), APART)
    of_data = {"divisors": divisors, "order": order, "cursor": cursor}
    sizes = dict(zip(BYTES, (*rows_of, divisors.itemsize, x.strides[0]), strict=True))
    GATHER(to, along=along, **given, **of_data, **into(out), **sizes, offset=offset)
    return out


def _in_rows(x: Array) -> bool:
    """Whether each row is contiguous, and lies behind the one before."""
    size, strides = x.itemsize, x.strides
    for n, stride in zip(reversed(x.shape[1:]), reversed(strides[1:]), strict=True):
        if n > 1 and stride != size:
            return False
        size *= n
    return bool(x.flags.aligned and strides[0] >= size)
