"""How errors pass an activation: what every bound needs to know of it, under the names of `ops/activations.py`."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from math import pi, sqrt

import numpy as np

from .._typing import Array
from ..ops.activations import slope_of


def _of_output(y: Array, _: Array) -> Array:
    return np.abs(y)


@dataclass(frozen=True)
class Sensitivity:
    """How errors pass y = g(z).

    Attributes:
        curvature: the largest |g''| between kinks.
        kinks: where g' jumps, and by how much.
        steepest: what |g'| does not exceed.
        rounding: from (y, z), the size that the rounding of g itself is relative to.
    """

    curvature: float = 0.0
    kinks: Mapping[float, float] = field(default_factory=dict)
    steepest: float = 1.2
    rounding: Callable[[Array, Array], Array] = _of_output


# Each from the slope. gelu for negative z is the difference of two numbers near z / 2.
SENSITIVITIES: dict[str, Callable[[float], Sensitivity]] = {
    "identity": lambda _: Sensitivity(),
    "relu": lambda _: Sensitivity(kinks={0.0: 1.0}),
    "leaky_relu": lambda slope: Sensitivity(kinks={0.0: abs(1 - slope)}),
    "sigmoid": lambda _: Sensitivity(curvature=1 / (6 * sqrt(3))),
    "tanh": lambda _: Sensitivity(curvature=4 / sqrt(27)),
    "gelu": lambda _: Sensitivity(curvature=sqrt(2 / pi), rounding=lambda y, z: np.abs(y) + np.abs(z)),
    "silu": lambda _: Sensitivity(curvature=0.5),
}


def sensitivity_of(kind: str, slope: float | None = None) -> Sensitivity:
    """How errors pass an activation with a slope, or with its default."""
    slope = slope_of(kind, slope)
    found = SENSITIVITIES[kind](slope)
    return replace(found, steepest=max(found.steepest, slope))


def activation_bound(u: float, error: Array, y: Array, kind: str, slope: float | None, z: Array) -> Array:
    """What an error of z becomes after g, and the rounding of g itself."""
    found = sensitivity_of(kind, slope)
    return found.steepest * error + 10 * u * found.rounding(y, z)
