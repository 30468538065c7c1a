"""activation, activation_backward and total: element by element over contiguous arrays."""

from ... import ops
from ..._typing import Array
from ...runtime.memory import Outputs
from ._launch import Kernel, flat, flat_grid, launches, vector_of

FILE = "pointwise.cu"
ACTIVATION = Kernel("activation", file=FILE, reads="x", writes="y", integers="size", reals="slope")
ACTIVATION_BACKWARD = Kernel(
    "activation_backward", file=FILE, reads="dy x y", writes="dx", integers="size", reals="slope", flags="adds"
)
TOTAL = Kernel("total", file=FILE, reads="a b", writes="out", integers="size", flags="adds")


launches(ops.activation, ACTIVATION, how=flat("x y"))
launches(ops.activation_backward, ACTIVATION_BACKWARD, how=flat("dy x y dx"))
launches(ops.total, TOTAL, how=flat("a b out"))


def summed(to: Outputs, a: Array, b: Array, out: Array) -> None:
    """Launch out = a + b, where out may be one of them."""
    vector = vector_of(a, None, a, b, out)
    TOTAL(to, a, vector, grid=flat_grid(a, a.size, vector), a=a, b=b, out=out, size=a.size, adds=False)
