"""gather_raw: a micro-batch out of raw data, cast and scaled on its way, all its arrays in one launch."""

from math import prod

import numpy as np

from ... import ops
from ..._typing import Array
from ...ops.gather import Gathered
from ...runtime.memory import Outputs
from .._launch import gathered
from ._launch import APART, TYPES, Kernel, cut_rows, output, ready, version
from .gather import BYTES, DATA, GATHERED, into

RAW = ("bool", "uint8", "uint16", "uint32", "int8", "int16", "int32", "int64", "float16")  # beside the usual ones

GATHER_RAW = Kernel("gather_raw", whole=f"{DATA} mean:double inv_scale:double", **GATHERED)


@version(ops.gather_raw, *RAW)
def gather_raw(
    to: Outputs, x: Array, target: Array, weights: Array | None, samples: Array, divisors: Array, order: Array,
    cursor: Array, mean: Array | None, inv_scale: Array | None, rows: int, offset: int
) -> Gathered:  # fmt: skip
    """Rows of x as they lie, which must be in C order: a copy of a data set would be made at every step."""
    dtype, classes = divisors.dtype, target.dtype.kind in "iu"
    x, divisors = ready(to, x), ready(to, divisors)
    samples, order, cursor = (ready(to, a, np.int64) for a in (samples, order, cursor))
    mean, inv_scale = ready(to, mean, np.float64), ready(to, inv_scale, np.float64)
    target, weights = ready(to, target, np.int64 if classes else dtype), ready(to, weights, dtype)
    given = {"x": x, "target": target, "weights": weights, "samples": samples}
    out = gathered(to, output, given, divisors, rows, divisors, dtype)
    rows_of = [0 if a is None else prod(a.shape[1:]) * a.itemsize for a in (x, target, weights)]
    raw = "u1" if x.dtype == np.bool_ else x.dtype.str[1:]
    along = cut_rows(rows, max(1, out.x[0].nbytes), APART)
    of_data = {"divisors": divisors, "order": order, "cursor": cursor, "mean": mean, "inv_scale": inv_scale}
    sizes = dict(zip(BYTES, (*rows_of, dtype.itemsize, rows_of[0]), strict=True))
    GATHER_RAW(
        to, raw, TYPES[dtype.name], along=along, **given, **of_data, **into(out), **sizes, offset=offset
    )  # fmt: skip
    return out
