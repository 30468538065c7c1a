"""activation, activation_backward and total: element by element over contiguous arrays."""

from ... import ops
from ..._typing import Array
from ...runtime.memory import Outputs
from .._arguments import Call
from ._launch import Kernel, activation_name, flat_grid, vector_of, version

FILE = "pointwise.cu"
ACTIVATION = Kernel("activation", file=FILE, reads="x", writes="y", integers="size", reals="slope")
ACTIVATION_BACKWARD = Kernel(
    "activation_backward", file=FILE, reads="dy x y", writes="dx", integers="size", reals="slope", flags="adds"
)
TOTAL = Kernel("total", file=FILE, reads="a b", writes="out", integers="size", flags="adds")


@version(ops.activation)
def activation(to: Outputs, call: Call) -> None:
    """y = g(x)."""
    vector = vector_of(call.x, None, call.x, call.y)
    ACTIVATION(to, call, vector, activation_name(call.kind), grid=flat_grid(call.x, call.size, vector))


@version(ops.activation_backward)
def activation_backward(to: Outputs, call: Call) -> None:
    """dx = dy g'(x), from x or y, whichever the derivative reads."""
    vector = vector_of(call.dy, None, call.dy, call.x, call.y, call.dx)
    ACTIVATION_BACKWARD(to, call, vector, activation_name(call.kind), grid=flat_grid(call.dy, call.size, vector))


@version(ops.total)
def total(to: Outputs, call: Call) -> None:
    """a + b."""
    summed(to, call.a, call.b, call.out, adds=call.adds)


def summed(to: Outputs, a: Array, b: Array, out: Array, *, adds: bool = False) -> None:
    """Launch out = a + b, where out may be one of them; `adds`: out = out + a + b."""
    vector = vector_of(a, None, a, b, out)
    TOTAL(to, a, vector, grid=flat_grid(a, a.size, vector), a=a, b=b, out=out, size=a.size, adds=adds)
