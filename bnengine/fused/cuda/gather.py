"""gather: a micro-batch out of the data on the device, all its arrays in one launch."""

from math import prod

import numpy as np

from ... import ops
from ..._typing import Array
from ...ops.gather import Gathered
from ...runtime.memory import Outputs
from .._launch import gathered
from ._launch import INDEX, Kernel, arithmetic, flat_grid, output, ready, vector_of, version
from ._launch import storage as storage_of

GATHER = Kernel(
    "gather", file="gather.cu", whole="x target:Y weights:wide samples:index divisors:wide order:index cursor:index",
    writes="x_out target_out:Y weights_out:wide samples_out:index divisor_out:wide",
    integers="rows features targets weighed offset",
)  # fmt: skip


@version(ops.gather)
def gather(
    to: Outputs, x: Array, target: Array, weights: Array | None, samples: Array, divisors: Array, order: Array,
    cursor: Array, rows: int, offset: int
) -> Gathered:  # fmt: skip
    """Rows of x by packs of 16 bytes, the rest one by one."""
    classes = target.dtype.kind in "iu"
    x, samples, order, cursor = ready(to, x), *(ready(to, a, np.int64) for a in (samples, order, cursor))
    target = ready(to, target, np.int64 if classes else arithmetic(x))
    weights, divisors = ready(to, weights, arithmetic(x)), ready(to, divisors, arithmetic(x))
    given = {"x": x, "target": target, "weights": weights, "samples": samples}
    out = gathered(to, output, given, divisors, rows, x, x.dtype)
    features, targets, weighed = (1 if a is None else prod(a.shape[1:]) for a in (x, target, weights))
    vector = vector_of(x, features, x, out.x)
    kind = INDEX if classes else storage_of(target)
    name, grid = (storage_of(x), vector, kind), flat_grid(x, rows * features, vector)
    of_data = {"divisors": divisors, "order": order, "cursor": cursor}
    outputs = {f"{field}_out": array for field, array in out._asdict().items()}
    sizes = {"rows": rows, "features": features, "targets": targets, "weighed": weighed, "offset": offset}
    GATHER(to, x, *name, grid=grid, **given, **of_data, **outputs, **sizes)
    return out
