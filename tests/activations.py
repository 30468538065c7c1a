"""Every activation once more, one row each: formulas worked by hand, in NumPy's longest floating type."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

LONG = np.longdouble
INF, NAN = math.inf, math.nan


class Oracle(NamedTuple):
    """One activation.

    value, derivative: g and g' from (z, slope).
    limits: g(inf) and g(-inf).
    torch: PyTorch's module, from (torch.nn, slope).
    of_y: g' from (y, slope); None where that does not do.
    slope: its default.
    atol: by how much a value in float64 may be off, in addition to its last place.
    """

    value: Callable[[Any, float], Any]
    derivative: Callable[[Any, float], Any]
    limits: tuple[float, float]
    torch: Callable[[Any, float], Any]
    of_y: Callable[[Any, float], Any] | None = None
    slope: float = 0.01
    atol: float = 0.0


def _cdf(z):
    return np.asarray([math.erfc(-float(t) / math.sqrt(2)) / 2 for t in np.ravel(z)], LONG).reshape(np.shape(z))


def _density(z):
    return np.exp(-z * z / 2) / np.sqrt(2 * LONG(math.pi))


def _leak(z, slope):
    return np.where(z > 0, LONG(1), LONG(slope))


ORACLES = {
    "identity": Oracle(
        value=lambda z, _: z,
        derivative=lambda z, _: np.ones_like(z),
        of_y=lambda y, _: np.ones_like(y),
        limits=(INF, -INF),
        torch=lambda nn, _: nn.Identity(),
    ),
    "relu": Oracle(
        value=lambda z, _: np.maximum(z, 0),
        derivative=lambda z, _: _leak(z, 0),
        of_y=lambda y, _: _leak(y, 0),
        limits=(INF, 0),
        torch=lambda nn, _: nn.ReLU(),
    ),
    "leaky_relu": Oracle(
        value=lambda z, slope: np.where(z >= 0, z, LONG(slope) * z),
        derivative=_leak,
        of_y=_leak,
        limits=(INF, -INF),
        torch=lambda nn, slope: nn.LeakyReLU(slope),
    ),
    "sigmoid": Oracle(
        value=lambda z, _: 1 / (1 + np.exp(-z)),
        derivative=lambda z, _: 1 / (2 + np.exp(z) + np.exp(-z)),
        of_y=lambda y, _: y * (1 - y),
        limits=(1, 0),
        torch=lambda nn, _: nn.Sigmoid(),
    ),
    "tanh": Oracle(
        value=lambda z, _: np.sinh(z) / np.cosh(z),
        derivative=lambda z, _: 1 / np.cosh(z) ** 2,
        of_y=lambda y, _: 1 - y**2,
        limits=(1, -1),
        torch=lambda nn, _: nn.Tanh(),
    ),
    "gelu": Oracle(
        value=lambda z, _: z * _cdf(z),
        derivative=lambda z, _: _cdf(z) + z * _density(z),
        limits=(INF, NAN),
        torch=lambda nn, _: nn.GELU(),
        atol=1e-14,  # at -30 it is the difference of two numbers near 15
    ),
    "silu": Oracle(
        value=lambda z, _: z / (1 + np.exp(-z)),
        derivative=lambda z, _: (1 + np.exp(-z) + z * np.exp(-z)) / (1 + np.exp(-z)) ** 2,
        limits=(INF, NAN),
        torch=lambda nn, _: nn.SiLU(),
    ),
}
