"""activation, activation_backward and total: element by element over contiguous arrays.

They are cut as batch normalisation is, so that they meet the layers before and behind them in the cache.
"""

from ... import ops
from ..._typing import Array
from ...ops.activations import ACTIVATIONS, slope_of
from ...runtime.memory import Outputs
from .._launch import extent
from ._launch import cut, flat, kernel, output, ready, version


@version(ops.activation)
def activation(to: Outputs, x: Array, kind: str, slope: float | None) -> Array:
    """y = g(x)."""
    x = ready(to, x)
    y = output(to, "out", x.shape, x.dtype, x)
    activated(to, flat(x), flat(y), kind, slope)
    return y


def activated(to: Outputs, x: Array, y: Array, kind: str, slope: float | None) -> None:
    """Launch y = g(x), both (rows, columns); y may be x."""
    along = cut(x.shape, x.itemsize)
    run = kernel("activation", x, kind, cut=along)
    to.launch(
        run,
        reads=(x,),
        writes=(y,),
        scalars=(*x.shape, along.by_columns, float(slope_of(kind, slope))),
        split=along.split,
    )


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
    along = cut(dy.shape, dy.itemsize)
    run = kernel("activation_backward", dy, kind, cut=along)
    scalars = (*dy.shape, along.by_columns, adds, float(slope_of(kind, slope)))
    to.launch(run, reads=(dy, x, y), writes=(dx,), scalars=scalars, split=along.split)


@version(ops.total)
def total(to: Outputs, a: Array, b: Array) -> Array:
    """a + b."""
    a = ready(to, a)
    b = ready(to, b, a.dtype)
    out = output(to, "out", a.shape, a.dtype, a)
    (rows, columns), along = extent(a), cut(extent(a), a.itemsize)
    scalars = (rows, columns, along.by_columns, to.adds("out"))
    run = kernel("total", a, cut=along)
    to.launch(run, reads=(flat(a), flat(b)), writes=(flat(out),), scalars=scalars, split=along.split)
    return out
