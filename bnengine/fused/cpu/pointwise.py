"""activation, activation_backward and total, element by element.

They are cut as batch normalization is, so that they share blocks in the cache with the layers before and after them.
"""

from typing import Any

from ... import ops
from ..._typing import Array
from ...ops.activations import slope_of
from ...runtime.memory import Outputs
from .._arguments import Call
from ._launch import Kernel, cut, version

_SIZES = "rows columns"
ACTIVATION = Kernel("activation", reads="x", writes="y", integers=_SIZES, flags="by_columns", reals="slope")
ACTIVATION_BACKWARD = Kernel(
    "activation_backward", reads="dy x y", writes="dx", integers=_SIZES, flags="by_columns adds", reals="slope"
)
TOTAL = Kernel("total", reads="a b", writes="out", integers=_SIZES, flags="by_columns adds")


@version(ops.activation)
def activation(to: Outputs, call: Call) -> None:
    """y = g(x)."""
    activated(to, call.x, call.y, call.kind, call.slope)


def activated(to: Outputs, x: Array, y: Array, kind: str, slope: float | None) -> None:
    """Launch y = g(x), both (rows, columns); y may be x."""
    ACTIVATION(to, x, kind, **_over(x), x=x, y=y, slope=slope_of(kind, slope))


@version(ops.activation_backward)
def activation_backward(to: Outputs, call: Call) -> None:
    """dx = dy g'(x), from x or y, whichever the derivative reads."""
    ACTIVATION_BACKWARD(to, call, call.kind, **_over(call.dy))


def derived(to: Outputs, dy: Array, y: Array, dz: Array, kind: str, slope: float | None) -> None:
    """Launch dz = dy g'(z) from y = g(z), all (rows, columns)."""
    arrays = {"dy": dy, "x": None, "y": y, "dx": dz}
    ACTIVATION_BACKWARD(to, dy, kind, **_over(dy), **arrays, adds=False, slope=slope_of(kind, slope))


@version(ops.total)
def total(to: Outputs, call: Call) -> None:
    """a + b."""
    TOTAL(to, call, **_over(call.a))


def _over(x: Array) -> dict[str, Any]:
    """How a launch over the rows and columns of x is cut, as the kernels take it."""
    along = cut(x.shape, x.itemsize)
    return {"along": along, "rows": x.shape[0], "columns": x.shape[1], "by_columns": along.by_columns}
