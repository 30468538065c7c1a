"""Activations: the value of each, its derivative beneath it, and the ops that apply one on its own.

Relu, leaky relu, sigmoid and tanh tell their derivative from their *output* y, so nothing else is kept and a rounding
of z cannot flip a mask; gelu needs its input z. Inside `affine` and `normalize` the same two functions follow the sum.
"""

from operator import add

from .._typing import Array
from ..arrays.dtypes import stored, widened
from ..arrays.namespaces import namespace
from ..errors import InputError
from ..runtime.op import op
from .special import erf, erf_derivative

ACTIVATIONS = ("identity", "relu", "leaky_relu", "sigmoid", "tanh", "gelu")
NEEDS_INPUT = ("gelu",)


def check_activation(owner: str, kind: str, slope: float) -> None:
    """Refuse an unknown activation or a slope that would hide the sign of z."""
    if kind not in ACTIVATIONS:
        raise InputError(f"{owner}: no activation {kind!r}; choose one of {', '.join(ACTIVATIONS)}")
    if not 0 <= slope < float("inf"):
        raise InputError(f"{owner}: slope {slope!r} is not a finite number from 0 up; leaky_relu uses 0.01 by default")


def activate(z: Array, kind: str, slope: float = 0.01) -> Array:
    """g(z): identity z; relu max(z, 0); leaky_relu z or slope z; sigmoid 1/(1+e^-z); tanh; gelu z Phi(z). NaN stays."""
    xp = namespace(z)
    if kind == "relu":
        return xp.where(z < 0, xp.zeros_like(z), z)
    if kind == "leaky_relu":
        return xp.where(z < 0, z * slope, z)
    if kind == "sigmoid":
        small = xp.exp(-xp.abs(z))  # never overflows
        return xp.where(z < 0, small, xp.ones_like(z)) / (1 + small)
    if kind == "tanh":
        return xp.tanh(z)
    if kind == "gelu":
        return z * normal_cdf(z)
    return z


def derivative(dy: Array, y: Array, kind: str, slope: float = 0.01, z: Array = None) -> Array:
    """dz = dy g'(z), from the output y = g(z); from z itself for gelu. For identity it is dy, the same array."""
    xp = namespace(dy)
    if kind == "relu":
        return xp.where(y > 0, dy, xp.zeros_like(dy))
    if kind == "leaky_relu":
        return xp.where(y > 0, dy, dy * slope)
    if kind == "sigmoid":
        return dy * (y * (1 - y))
    if kind == "tanh":
        return dy * (1 - y * y)
    if kind == "gelu":
        return dy * (normal_cdf(z) + z * normal_density(z))
    return dy


def normal_cdf(z: Array) -> Array:
    """Phi(z) = (1 + erf(z / sqrt 2)) / 2."""
    return (1 + erf(z * 0.5**0.5)) * 0.5


def normal_density(z: Array) -> Array:
    """phi(z) = exp(-z^2 / 2) / sqrt(2 pi)."""
    return erf_derivative(z * 0.5**0.5) * 8**-0.5


@op(family="pointwise")
def activation(x: Array, *, kind: str, slope: float = 0.01) -> Array:
    """y = g(x), element by element; x of any shape, floating; y like x. Exact gelu: Hendrycks and Gimpel (2016)."""
    return stored(activate(widened(x), kind, slope), x)


@op(family="pointwise", accumulates={"out": add})
def activation_backward(dy: Array, x: Array, y: Array, *, kind: str, slope: float = 0.01) -> Array:
    """dx = dy g'(x), with y = g(x); all of one shape; dx may be added into a destination, and is never dy itself."""
    if kind == "identity":
        return namespace(dy).asarray(dy, copy=True)
    return stored(derivative(widened(dy), widened(y), kind, slope, widened(x)), dy)


@op(family="pointwise", accumulates={"out": add})
def total(a: Array, b: Array) -> Array:
    """y = a + b, both of one shape: a residual's sum where no other op takes it over, and its gradient's."""
    return stored(widened(a) + widened(b), a)
