"""Activations, one row each: y = g(z), and the derivative right below it.

Most derivatives read the *output* y, so nothing else is stored and a rounding of z cannot flip a mask; the others read
z. A new activation is a row here, its bound in `contracts/activations.py`, a line of `ACTIVATIONS` in
`kernels/rules.h`, and an oracle in `tests/activations.py`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from .._typing import Array
from ..arrays.namespaces import namespace
from ..validation import choice, number
from .special import erf, erf_derivative

NO_SLOPE = 0.01  # the slope in files, for an activation that has none


@dataclass(frozen=True)
class ActivationRule:
    """One activation.

    Attributes:
        formula: g in words or symbols.
        value: from (xp, z, slope) to g(z), xp the namespace of z; NaN stays NaN.
        derivative: from (xp, dy, y, slope) to dy g'(z), or from (xp, dy, z, slope) if it `reads` "z".
        reads: what the derivative needs: "nothing", the output "y" or the input "z".
        slope: the default of its parameter `slope`; None if it has none.
        saturates: whether g is bounded, so that weights are drawn by Glorot and Bengio's rule instead of He's.
    """

    formula: str
    value: Callable[[Any, Array, float], Array]
    derivative: Callable[[Any, Array, Array, float], Array]
    reads: Literal["nothing", "y", "z"] = "y"
    slope: float | None = None
    saturates: bool = False


def logistic(xp: Any, z: Array) -> Array:
    """1 / (1 + exp(-z))."""
    small = xp.exp(-xp.abs(z))  # never overflows
    return xp.where(z < 0, small, xp.ones_like(z)) / (1 + small)


def normal_cdf(z: Array) -> Array:
    """Phi(z) = (1 + erf(z / sqrt 2)) / 2."""
    return (1 + erf(z * 0.5**0.5)) * 0.5


def normal_density(z: Array) -> Array:
    """phi(z) = exp(-z^2 / 2) / sqrt(2 pi)."""
    return erf_derivative(z * 0.5**0.5) * 8**-0.5


ACTIVATIONS = {
    "identity": ActivationRule(
        "z",
        value=lambda _, z, __: z,
        derivative=lambda _, dy, __, ___: dy,
        reads="nothing",
    ),
    "relu": ActivationRule(
        "max(z, 0)",
        value=lambda xp, z, _: xp.where(z < 0, xp.zeros_like(z), z),
        derivative=lambda xp, dy, y, _: xp.where(y > 0, dy, xp.zeros_like(dy)),
    ),
    "leaky_relu": ActivationRule(
        "z, or slope z for z < 0",
        value=lambda xp, z, slope: xp.where(z < 0, z * slope, z),
        derivative=lambda xp, dy, y, slope: xp.where(y > 0, dy, dy * slope),
        slope=0.01,
    ),
    "sigmoid": ActivationRule(
        "1 / (1 + exp(-z))",
        value=lambda xp, z, _: logistic(xp, z),
        derivative=lambda _, dy, y, __: dy * (y * (1 - y)),
        saturates=True,
    ),
    "tanh": ActivationRule(
        "tanh(z)",
        value=lambda xp, z, _: xp.tanh(z),
        derivative=lambda _, dy, y, __: dy * (1 - y * y),
        saturates=True,
    ),
    "gelu": ActivationRule(
        "z Phi(z), exact (Hendrycks and Gimpel 2016)",
        value=lambda _, z, __: z * normal_cdf(z),
        derivative=lambda _, dy, z, __: dy * (normal_cdf(z) + z * normal_density(z)),
        reads="z",
    ),
    "silu": ActivationRule(
        "z / (1 + exp(-z)) (Elfwing, Uchibe and Doya 2018)",
        value=lambda xp, z, _: z * logistic(xp, z),
        derivative=lambda xp, dy, z, _: dy * (logistic(xp, z) * (1 + z * logistic(xp, -z))),
        reads="z",
    ),
}

NONLINEAR = tuple(kind for kind in ACTIVATIONS if kind != "identity")


def slope_of(kind: str, slope: float | None = None) -> float:
    """Return the slope, or the activation's default for None."""
    default = ACTIVATIONS[kind].slope
    return slope if slope is not None else NO_SLOPE if default is None else default


def check_activation(where: str, kind: str, slope: float | None = None, *, name: str = "activation") -> None:
    """Raise InputError for an unknown activation, and for a slope below 0, which would hide the sign of z."""
    choice(where, name, kind, ACTIVATIONS)
    if slope is not None:
        number(where, "slope", slope, least=0, cure="None takes the default.")


def activate(z: Array, kind: str, slope: float | None = None) -> Array:
    """g(z), of the shape and dtype of z."""
    return ACTIVATIONS[kind].value(namespace(z), z, slope_of(kind, slope))


def derivative(dy: Array, y: Array, kind: str, slope: float | None = None, z: Array = None) -> Array:
    """dz = dy g'(z), from y = g(z), or from z if the derivative reads it; dy itself for identity."""
    rule = ACTIVATIONS[kind]
    return rule.derivative(namespace(dy), dy, z if rule.reads == "z" else y, slope_of(kind, slope))
