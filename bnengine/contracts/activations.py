"""How errors propagate through an activation, under the names of `ops/activations.py`; bounds of other ops use it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from math import pi, sqrt

import numpy as np

from .._typing import Array
from ..ops.activations import slope_of
from ._contract import row_of


def _of_output(y: Array, _: Array) -> Array:
    return np.abs(y)


@dataclass(frozen=True)
class Sensitivity:
    """The propagation of errors through y = g(z).

    Attributes:
        curvature: the largest |g''| between kinks.
        kinks: where g' jumps, and by how much.
        steepest: an upper bound of |g'|.
        rounding: from (y, z), the size that the rounding error of g itself is relative to.
    """

    curvature: float = 0.0
    kinks: Mapping[float, float] = field(default_factory=dict)
    steepest: float = 1.2
    rounding: Callable[[Array, Array], Array] = _of_output


# From the slope. gelu of a negative z is the difference of two numbers near z / 2, which cancel.
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
    """Return how errors propagate through an activation with a slope, None for its default."""
    slope = slope_of(kind, slope)
    row = row_of(SENSITIVITIES, kind, what="activation", write="SENSITIVITIES of bnengine/contracts/activations.py")
    sensitivity = row(slope)
    return replace(sensitivity, steepest=max(sensitivity.steepest, slope))


def activation_bound(u: float, error: Array, y: Array, kind: str, slope: float | None, z: Array) -> Array:
    """Return the error of y = g(z) for an error of z, with the rounding of g itself."""
    sensitivity = sensitivity_of(kind, slope)
    return sensitivity.steepest * error + 10 * u * sensitivity.rounding(y, z)
