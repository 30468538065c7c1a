"""Ops of single elements: an activation on its own, and the sum of two arrays."""

from operator import add

from .._typing import Array
from ..arrays.dtypes import stored, widened
from ..arrays.namespaces import namespace
from ..runtime.op import op
from .activations import activate, derivative


@op(family="pointwise")
def activation(x: Array, *, kind: str, slope: float | None = None) -> Array:
    """y = g(x), element by element; x of any shape, floating; y like x."""
    return stored(activate(widened(x), kind, slope), x)


@op(family="pointwise", accumulates={"out": add})
def activation_backward(dy: Array, x: Array, y: Array, *, kind: str, slope: float | None = None) -> Array:
    """dx = dy g'(x), with y = g(x); all of one shape; dx may be added into a destination, and is never dy itself."""
    if kind == "identity":
        return namespace(dy).asarray(dy, copy=True)
    return stored(derivative(widened(dy), widened(y), kind, slope, widened(x)), dy)


@op(family="pointwise", accumulates={"out": add})
def total(a: Array, b: Array) -> Array:
    """y = a + b, both of one shape: a residual's sum where no other op takes it over, and its gradient's."""
    return stored(widened(a) + widened(b), a)
