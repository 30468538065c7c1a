"""gather and gather_raw: a micro-batch from the data in memory, all its arrays in one launch."""

from math import prod

import numpy as np

from ... import ops
from ...runtime.memory import Outputs
from .._arguments import Call
from ._launch import GATHER_COST, TYPES, Kernel, cut_rows, version

# Data besides the usual dtypes.
RAW = ("bool", "uint8", "uint16", "uint32", "int8", "int16", "int32", "int64", "float16")

_DATA = "x:char target:char weights:char samples:index divisors:char order:index cursor:index"
_ROWS = {
    "writes": "to_x:char to_target:char to_weights:char to_samples:index to_divisor:char",
    "integers": "bytes_x bytes_target bytes_weights bytes_divisor bytes_between offset",
}
GATHER = Kernel("gather", whole=_DATA, **_ROWS)
GATHER_RAW = Kernel("gather_raw", whole=f"{_DATA} mean:double inv_scale:double", **_ROWS)


@version(ops.gather)
def gather(to: Outputs, call: Call) -> None:
    """Rows of bytes. Those of x may lie apart, like rows of a larger array: a data set is not copied for that."""
    sizes = _bytes(call)
    along = cut_rows(call.rows, max(1, sizes["bytes_x"] + sizes["bytes_target"] + sizes["bytes_weights"]), GATHER_COST)
    GATHER(to, call, along=along, **sizes, bytes_between=call.x.strides[0])


@version(ops.gather_raw, *RAW)
def gather_raw(to: Outputs, call: Call) -> None:
    """Rows of x, cast and scaled. x must be in C order: otherwise every step would copy the data set."""
    sizes = _bytes(call)
    raw = "u1" if call.x.dtype == np.bool_ else call.x.dtype.str[1:]
    along = cut_rows(call.rows, max(1, call.to_x[0].nbytes), GATHER_COST)
    GATHER_RAW(to, call, raw, TYPES[call.lead.dtype.name], along=along, **sizes, bytes_between=sizes["bytes_x"])


def _bytes(call: Call) -> dict[str, int]:
    """The bytes of a row of each array."""
    arrays = {"x": call.x, "target": call.target, "weights": call.weights, "divisor": call.divisors[:1]}
    return {f"bytes_{name}": 0 if a is None else prod(a.shape[1:]) * a.itemsize for name, a in arrays.items()}
