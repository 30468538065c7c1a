"""activation, activation_backward and total: element by element over contiguous arrays.

They are cut as batch normalisation is, so that they meet the layers before and behind them in the cache.
"""

from typing import Any

from ... import ops
from ..._typing import Array
from ...ops.activations import ACTIVATIONS, slope_of
from ...runtime.memory import Outputs
from .._launch import extent
from ._launch import Kernel, cut, flat, output, ready, version

_SIZES = "rows columns"
ACTIVATION = Kernel("activation", reads="x", writes="y", integers=_SIZES, flags="by_columns", reals="slope")
ACTIVATION_BACKWARD = Kernel(
    "activation_backward", reads="dy x y", writes="dx", integers=_SIZES, flags="by_columns adds", reals="slope"
)
TOTAL = Kernel("total", reads="a b", writes="out", integers=_SIZES, flags="by_columns adds")


@version(ops.activation)
def activation(to: Outputs, x: Array, kind: str, slope: float | None) -> Array:
    """y = g(x)."""
    x = ready(to, x)
    y = output(to, "out", x.shape, x.dtype, x)
    activated(to, flat(x), flat(y), kind, slope)
    return y


def activated(to: Outputs, x: Array, y: Array, kind: str, slope: float | None) -> None:
    """Launch y = g(x), both (rows, columns); y may be x."""
    ACTIVATION(to, x, kind, **_over(x.shape, x), x=x, y=y, slope=slope_of(kind, slope))


@version(ops.activation_backward)
def activation_backward(to: Outputs, dy: Array, x: Array, y: Array, kind: str, slope: float | None) -> Array:
    """dx = dy g'(x), from x or y, whichever the derivative reads."""
    dy = ready(to, dy)
    reads = ACTIVATIONS[kind].reads
    x = ready(to, x, dy.dtype) if reads == "z" else None
    y = ready(to, y, dy.dtype) if reads == "y" else None
    dx = output(to, "out", dy.shape, dy.dtype, dy)
    derived(to, flat(dy), flat(x), flat(y), flat(dx), kind, slope, adds=to.adds("out"))
    return dx


def derived(
    to: Outputs, dy: Array, x: Array | None, y: Array | None, dx: Array, kind: str, slope: float | None, *,
    adds: bool = False,
) -> None:  # fmt: skip
    """Launch dx = dy g'(x), all (rows, columns), or with `adds` dx = dx + dy g'(x)."""
    arrays = {"dy": dy, "x": x, "y": y, "dx": dx}
    ACTIVATION_BACKWARD(to, dy, kind, **_over(dy.shape, dy), **arrays, adds=adds, slope=slope_of(kind, slope))


@version(ops.total)
def total(to: Outputs, a: Array, b: Array) -> Array:
    """a + b."""
    a = ready(to, a)
    b = ready(to, b, a.dtype)
    out = output(to, "out", a.shape, a.dtype, a)
    TOTAL(to, a, **_over(extent(a), a), a=flat(a), b=flat(b), out=flat(out), adds=to.adds("out"))
    return out


def _over(shape: tuple[int, int], x: Array) -> dict[str, Any]:
    """How a launch over arrays of this shape and the dtype of x is cut, as the kernels take it."""
    along = cut(shape, x.itemsize)
    return {"along": along, "rows": shape[0], "columns": shape[1], "by_columns": along.by_columns}
