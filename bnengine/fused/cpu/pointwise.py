"""activation, activation_backward and total, element by element.

They are cut as batch normalization is, so that they share blocks in the cache with the layers before and after them.
"""

from ... import ops
from ..._typing import Array
from ...ops.activations import slope_of
from ...runtime.memory import Outputs
from ._launch import Kernel, launches, over

_SIZES = "rows columns"
ACTIVATION = Kernel("activation", reads="x", writes="y", integers=_SIZES, flags="by_columns", reals="slope")
ACTIVATION_BACKWARD = Kernel(
    "activation_backward", reads="dy x y", writes="dx", integers=_SIZES, flags="by_columns adds", reals="slope"
)
TOTAL = Kernel("total", reads="a b", writes="out", integers=_SIZES, flags="by_columns adds")


def activated(to: Outputs, x: Array, y: Array, kind: str, slope: float | None) -> None:
    """Launch y = g(x), both (rows, columns); y may be x."""
    ACTIVATION(to, x, kind, **over(x), x=x, y=y, slope=slope_of(kind, slope))


def derived(to: Outputs, dy: Array, y: Array, dz: Array, kind: str, slope: float | None) -> None:
    """Launch dz = dy g'(z) from y = g(z), all (rows, columns)."""
    arrays = {"dy": dy, "x": None, "y": y, "dx": dz}
    ACTIVATION_BACKWARD(to, dy, kind, **over(dy), **arrays, adds=False, slope=slope_of(kind, slope))


launches(ops.activation, ACTIVATION, how=lambda call: ((call.kind,), over(call.x)))
launches(ops.activation_backward, ACTIVATION_BACKWARD, how=lambda call: ((call.kind,), over(call.dy)))
launches(ops.total, TOTAL, how=lambda call: ((), over(call.a)))
