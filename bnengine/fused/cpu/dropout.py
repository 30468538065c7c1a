"""dropout and dropout_backward, with the same random bits as every other library."""

from ... import ops
from ...arrays.random import split_seed
from ...runtime.memory import Outputs
from .._arguments import Call
from ._launch import Kernel, launches, over, version

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
    low, high = split_seed(call.seed)
    cut = over(call.x, "features")  # its units are multiples of the four features of a counter
    DROPOUT(to, call, **cut, seed_low=low, seed_high=high, threshold=round(call.rate * 2**32))


launches(ops.dropout_backward, DROPOUT_BACKWARD, how=lambda call: ((), over(call.dy, "features")))
