"""dropout and dropout_backward, with the same random bits as every other library."""

from ... import ops
from ...arrays.random import split_seed
from ...runtime.memory import Outputs
from .._arguments import Call
from ._launch import Kernel, cut, version

DROPOUT = Kernel(
    "dropout", whole="step:index samples:index", reads="x", writes="y keep:bool",
    integers="rows features seed_low seed_high layer threshold", flags="by_columns", reals="rate",
)  # fmt: skip
DROPOUT_BACKWARD = Kernel(
    "dropout_backward", reads="dy keep:bool", writes="dx", integers="rows features", flags="by_columns adds",
    reals="rate",
)  # fmt: skip


@version(ops.dropout)
def dropout(to: Outputs, call: Call) -> None:
    """y = x / (1 - rate) where kept, else 0; and where it was kept."""
    along = cut(call.x.shape, call.x.itemsize)  # its units are multiples of the four features of a counter
    (rows, features), (low, high) = call.x.shape, split_seed(call.seed)
    DROPOUT(
        to, call, along=along, rows=rows, features=features, by_columns=along.by_columns, seed_low=low, seed_high=high,
        threshold=round(call.rate * 2**32),
    )  # fmt: skip


@version(ops.dropout_backward)
def dropout_backward(to: Outputs, call: Call) -> None:
    """dx = dy / (1 - rate) where kept, else 0."""
    (rows, features), along = call.dy.shape, cut(call.dy.shape, call.dy.itemsize)
    DROPOUT_BACKWARD(to, call, along=along, rows=rows, features=features, by_columns=along.by_columns)
