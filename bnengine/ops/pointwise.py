"""Activations: the value of each, its derivative beneath it, and the ops that apply one on its own.

Relu, leaky relu, sigmoid and tanh tell their derivative from their *output* y, so nothing else is kept and a rounding
of z cannot flip a mask; gelu needs its input z. Inside `affine` and `normalize` the same two functions follow the sum.
"""

from collections.abc import Iterator, Mapping
from operator import add
from typing import Any

import numpy as np

from .._typing import Array
from ..arrays.dtypes import NORMAL, arithmetic_name, stored, widened
from ..arrays.namespaces import dtype_name, namespace
from ..errors import InputError
from ..runtime.op import Example, op
from .special import erf, erf_derivative

ACTIVATIONS = ("identity", "relu", "leaky_relu", "sigmoid", "tanh", "gelu")
NEEDS_INPUT = ("gelu",)


def check_activation(owner: str, kind: str, slope: float) -> None:
    """Refuse an unknown activation or a slope that would hide the sign of z."""
    if kind not in ACTIVATIONS:
        raise InputError(f"{owner}: no activation {kind!r}; choose one of {', '.join(ACTIVATIONS)}")
    if not 0 <= slope < float("inf"):
        raise InputError(f"{owner}: slope {slope!r} is not a finite number from 0 up; leaky_relu uses 0.01 by default")


def check_floating(owner: str, *, wide: Mapping[str, Array | None] | None = None, **arrays: Array | None) -> None:
    """Refuse integers, whose mean or gradient would be rounded to an integer without a word, and mixed dtypes.

    `wide`: parameters and weights, which are in the dtype that the others are computed in: float32 beside 16 bits.
    """
    given = {name: a for name, a in arrays.items() if a is not None}
    first, like = next(iter(given.items()))
    for name, a in (given | {n: a for n, a in (wide or {}).items() if a is not None}).items():
        if not dtype_name(a.dtype).startswith(("float", "bfloat")):
            raise InputError(f"{owner}: {name} is {a.dtype}; give float32 or float64")
        needed = dtype_name(like.dtype) if name in given else arithmetic_name(like.dtype)
        if dtype_name(a.dtype) != needed:
            cure = "bring both to one dtype" if needed == dtype_name(like.dtype) else f"{name} must be {needed}"
            raise InputError(f"{owner}: {name} is {a.dtype} and {first} is {like.dtype}; {cure}")


def check_alike(owner: str, **arrays: Array | None) -> None:
    """Refuse arrays that are not all of one shape: broadcasting would hide a mistake."""
    given = {name: tuple(a.shape) for name, a in arrays.items() if a is not None}
    if len(set(given.values())) > 1:
        shapes = ", ".join(f"{name} {shape}" for name, shape in given.items())
        raise InputError(f"{owner}: {shapes} must be of one shape")


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


def activation_bound(u: float, error: Array, y: Array, kind: str, slope: float, z: Array = 0.0) -> Array:
    """What an error of z becomes behind g: |g'| is at most 1, or the slope, or 1.13 for gelu; plus g's own rounding.

    gelu for negative z is the difference of two numbers near z / 2, hence its term in |z|.
    """
    own = 10 * u * np.abs(y) if kind != "gelu" else 10 * u * (np.abs(y) + np.abs(z))
    return max(1.2, slope) * error + own


def _points(rng: Any, dtype: str) -> Array:
    x = (rng.standard_normal((9, 5)) * 3).astype(dtype)
    x[0] = [0.0, -0.0, 30.0, -30.0, NORMAL[dtype] / 4]
    return x


def _examples(rng: Any, dtype: str) -> Iterator[Example]:
    for kind in ACTIVATIONS:
        yield Example(kind, (_points(rng, dtype),), {"kind": kind, "slope": 0.2})


def _bound(u: float, x: Array, *, kind: str, slope: float = 0.01) -> Array:
    return activation_bound(u, 10 * u * np.abs(x), activate(x, kind, slope), kind, slope, x)


def _check(x: Array, *, kind: str, slope: float = 0.01) -> None:
    check_activation("activation", kind, slope)
    check_floating("activation", x=x)


@op(family="pointwise", examples=_examples, bound=_bound, check=_check)
def activation(x: Array, *, kind: str, slope: float = 0.01) -> Array:
    """y = g(x), element by element; x of any shape, floating; y like x. Exact gelu: Hendrycks and Gimpel (2016)."""
    return stored(activate(widened(x), kind, slope), x)


def _examples_backward(rng: Any, dtype: str) -> Iterator[Example]:
    for kind in ACTIVATIONS:
        x = _points(rng, dtype)
        y = activate(widened(x), kind, 0.2).astype(dtype)
        yield Example(kind, (rng.standard_normal(x.shape).astype(dtype), x, y), {"kind": kind, "slope": 0.2})


def _bound_backward(u: float, dy: Array, x: Array, y: Array, *, kind: str, slope: float = 0.01) -> Array:
    return 10 * u * np.abs(dy) * max(1.2, slope) * (1 + np.abs(x) * (kind == "gelu"))


def _check_backward(dy: Array, x: Array, y: Array, *, kind: str, slope: float = 0.01) -> None:
    check_activation("activation_backward", kind, slope)
    check_floating("activation_backward", dy=dy, x=x, y=y)
    check_alike("activation_backward", dy=dy, x=x, y=y)


@op(
    family="pointwise",
    examples=_examples_backward,
    bound=_bound_backward,
    accumulates={"out": add},
    check=_check_backward,
)
def activation_backward(dy: Array, x: Array, y: Array, *, kind: str, slope: float = 0.01) -> Array:
    """dx = dy g'(x), with y = g(x); all of one shape; dx may be added into a destination, and is never dy itself."""
    if kind == "identity":
        return namespace(dy).asarray(dy, copy=True)
    return stored(derivative(widened(dy), widened(y), kind, slope, widened(x)), dy)


def _examples_total(rng: Any, dtype: str) -> Iterator[Example]:
    yield Example("plain", tuple(rng.standard_normal((4, 3)).astype(dtype) for _ in range(2)))


def _bound_total(u: float, a: Array, b: Array) -> Array:
    return 10 * u * (np.abs(a) + np.abs(b))


def _check_total(a: Array, b: Array) -> None:
    check_floating("total", a=a, b=b)
    check_alike("total", a=a, b=b)


@op(family="pointwise", examples=_examples_total, bound=_bound_total, accumulates={"out": add}, check=_check_total)
def total(a: Array, b: Array) -> Array:
    """y = a + b, both of one shape: a residual's sum where no other op takes it over, and its gradient's."""
    return stored(widened(a) + widened(b), a)
