"""dropout and dropout_backward, with the same random bits as every other library."""

from ... import ops
from ._launch import Kernel, launches, over

DROPOUT = Kernel(
    "dropout", whole="step:index samples:index", reads="x", writes="y keep:bool",
    integers="rows features seed_low seed_high layer threshold", flags="by_columns", reals="rate",
)  # fmt: skip
DROPOUT_BACKWARD = Kernel(
    "dropout_backward", reads="dy keep:bool", writes="dx", integers="rows features", flags="by_columns adds",
    reals="rate",
)  # fmt: skip


# The units of a cut are multiples of the four features of a counter.
launches(ops.dropout, DROPOUT, how=lambda call: ((), over(call.x, "features")))
launches(ops.dropout_backward, DROPOUT_BACKWARD, how=lambda call: ((), over(call.dy, "features")))
