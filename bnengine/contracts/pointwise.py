"""The contracts of activation, its gradient, and total: examples, error bounds, checks of arguments."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from .._typing import Array
from ..arrays.dtypes import NORMAL, widened
from ..ops import Example
from ..ops.activations import ACTIVATIONS, activate, check_activation
from ..ops.pointwise import activation, activation_backward, total
from ._contract import contract
from .activations import activation_bound, sensitivity_of
from .arguments import check_alike, check_floating


def _points(rng: Any, dtype: str) -> Array:
    x = (rng.standard_normal((9, 5)) * 3).astype(dtype)
    x[0] = [0.0, -0.0, 30.0, -30.0, NORMAL[dtype] / 4]
    return x


def _examples(rng: Any, dtype: str) -> Iterator[Example]:
    for kind in ACTIVATIONS:
        yield Example(kind, (_points(rng, dtype),), {"kind": kind, "slope": 0.2})


def _bound(u: float, x: Array, *, kind: str, slope: float | None = None) -> Array:
    return activation_bound(u, 10 * u * np.abs(x), activate(x, kind, slope), kind, slope, x)


def _check(x: Array, *, kind: str, slope: float | None = None) -> None:
    check_activation("activation", kind, slope, name="kind")
    check_floating("activation", x=x)


contract(activation, examples=_examples, bound=_bound, check=_check)


def _examples_backward(rng: Any, dtype: str) -> Iterator[Example]:
    for kind in ACTIVATIONS:
        x = _points(rng, dtype)
        y = activate(widened(x), kind, 0.2).astype(dtype)
        yield Example(kind, (rng.standard_normal(x.shape).astype(dtype), x, y), {"kind": kind, "slope": 0.2})


def _bound_backward(u: float, dy: Array, x: Array, y: Array, *, kind: str, slope: float | None = None) -> Array:
    terms = 1 + np.abs(x) if ACTIVATIONS[kind].reads == "z" else 1.0
    return 10 * u * np.abs(dy) * sensitivity_of(kind, slope).steepest * terms


def _check_backward(dy: Array, x: Array, y: Array, *, kind: str, slope: float | None = None) -> None:
    check_activation("activation_backward", kind, slope, name="kind")
    check_floating("activation_backward", dy=dy, x=x, y=y)
    check_alike("activation_backward", dy=dy, x=x, y=y)


contract(activation_backward, examples=_examples_backward, bound=_bound_backward, check=_check_backward)


def _examples_total(rng: Any, dtype: str) -> Iterator[Example]:
    yield Example("plain", tuple(rng.standard_normal((4, 3)).astype(dtype) for _ in range(2)))


def _bound_total(u: float, a: Array, b: Array) -> Array:
    return 10 * u * (np.abs(a) + np.abs(b))


def _check_total(a: Array, b: Array) -> None:
    check_floating("total", a=a, b=b)
    check_alike("total", a=a, b=b)


contract(total, examples=_examples_total, bound=_bound_total, check=_check_total)
