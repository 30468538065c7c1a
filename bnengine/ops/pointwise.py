"""Ops of single elements: an activation on its own, and the sum of two arrays."""

from operator import add

from .._typing import Array
from ..arrays.dtypes import stored, widened
from ..arrays.namespaces import namespace
from ..runtime.op import op
from .activations import activate, derivative


@op(family="pointwise")
def activation(x: Array, *, kind: str, slope: float | None = None) -> Array:
    """Apply an activation element by element: y = g(x).

    Args:
        x: any shape, floating.
        kind: a key of `ACTIVATIONS`.
        slope: the activation's parameter; None for its default.

    Returns:
        y, of the shape and dtype of x.
    """
    return stored(activate(widened(x), kind, slope), x)


@op(family="pointwise", accumulates={"out": add})
def activation_backward(dy: Array, x: Array, y: Array, *, kind: str, slope: float | None = None) -> Array:
    """Gradient of `activation`: dx = dy g'(x), with y = g(x).

    Args:
        dy, x, y: of one shape and dtype; kind and slope are those of `activation`.

    Returns:
        dx like dy, always a new array.
    """
    if kind == "identity":
        return namespace(dy).asarray(dy, copy=True)
    return stored(derivative(widened(dy), widened(y), kind, slope, widened(x)), dy)


@op(family="pointwise", accumulates={"out": add})
def total(a: Array, b: Array) -> Array:
    """y = a + b: the sum of a residual, and of its gradients, where no other op computes it.

    Args:
        a, b: of one shape and dtype, as is y.
    """
    return stored(widened(a) + widened(b), a)
