"""dropout and dropout_backward, with the random bits of every other library."""

from ... import ops
from ...runtime.memory import Outputs
from .._arguments import Call
from ._launch import Kernel, flat, flat_grid, launches, vector_of, version

FILE, FEATURES = "dropout.cu", 4  # a thread has the four features of one counter
DROPOUT = Kernel(
    "dropout", file=FILE, whole="step:index", reads="x samples:index", writes="y keep:bool",
    integers="rows features seed_low seed_high layer threshold", reals="rate",
)  # fmt: skip
DROPOUT_BACKWARD = Kernel(
    "dropout_backward", file=FILE, reads="dy keep:bool", writes="dx", integers="size", reals="rate", flags="adds"
)


@version(ops.dropout)
def dropout(to: Outputs, call: Call) -> None:
    """y = x / (1 - rate) where kept, else 0; and where it was kept."""
    aligned = vector_of(call.x, None, call.x, call.y, call.keep) > 1 and call.features % FEATURES == 0
    grid = flat_grid(call.x, call.rows * -(-call.features // FEATURES))
    DROPOUT(to, call, FEATURES if aligned else 1, grid=grid)


launches(ops.dropout_backward, DROPOUT_BACKWARD, how=flat("dy keep dx"))
