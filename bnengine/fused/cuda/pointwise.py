"""activation, activation_backward and total: element by element over contiguous arrays."""

from ... import ops
from ..._typing import Array
from ...ops.activations import ACTIVATIONS, slope_of
from ...runtime.memory import Outputs
from ._launch import (
    Kernel,
    activation_name,
    flat_grid,
    output,
    ready,
    vector_of,
    version,
)
from ._launch import storage as storage_of

FILE = "pointwise.cu"
ACTIVATION = Kernel("activation", file=FILE, reads="x", writes="y", integers="size", reals="slope")
ACTIVATION_BACKWARD = Kernel(
    "activation_backward", file=FILE, reads="dy x y", writes="dx", integers="size", reals="slope", flags="adds"
)
TOTAL = Kernel("total", file=FILE, reads="a b", writes="out", integers="size", flags="adds")


@version(ops.activation)
def activation(to: Outputs, x: Array, kind: str, slope: float | None) -> Array:
    """y = g(x)."""
    x = ready(to, x)
    y = output(to, "out", x.shape, x.dtype, x)
    vector = vector_of(x, None, x, y)
    name, grid = (storage_of(x), vector, activation_name(kind)), flat_grid(x, x.size, vector)
    ACTIVATION(to, x, *name, grid=grid, x=x, y=y, size=x.size, slope=slope_of(kind, slope))
    return y


@version(ops.activation_backward)
def activation_backward(to: Outputs, dy: Array, x: Array, y: Array, kind: str, slope: float | None) -> Array:
    """dx = dy g'(x), from x or y, whichever the derivative reads."""
    dy = ready(to, dy)
    reads = ACTIVATIONS[kind].reads
    x = ready(to, x, dy.dtype) if reads == "z" else None
    y = ready(to, y, dy.dtype) if reads == "y" else None
    dx = output(to, "out", dy.shape, dy.dtype, dy)
    vector = vector_of(dy, None, dy, x, y, dx)
    name, arrays = (storage_of(dy), vector, activation_name(kind)), {"dy": dy, "x": x, "y": y, "dx": dx}
    scalars = {"size": dy.size, "slope": slope_of(kind, slope), "adds": to.adds("out")}
    ACTIVATION_BACKWARD(to, dy, *name, grid=flat_grid(dy, dy.size, vector), **arrays, **scalars)
    return dx


@version(ops.total)
def total(to: Outputs, a: Array, b: Array) -> Array:
    """a + b."""
    a, b = ready(to, a), ready(to, b, a.dtype)
    out = output(to, "out", a.shape, a.dtype, a)
    summed(to, a, b, out, adds=to.adds("out"))
    return out


def summed(to: Outputs, a: Array, b: Array, out: Array, *, adds: bool = False) -> None:
    """Launch out = a + b, which may be one of them; `adds`: out = out + a + b."""
    vector = vector_of(a, None, a, b, out)
    grid = flat_grid(a, a.size, vector)
    TOTAL(to, a, storage_of(a), vector, grid=grid, a=a, b=b, out=out, size=a.size, adds=adds)
