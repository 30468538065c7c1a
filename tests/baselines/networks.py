"""Lists of layers: widths that fill no vector, and every way in which neighbors are fused or stay apart."""

import itertools
from collections.abc import Callable
from typing import Any

import bnengine as bn
from bnengine.layers import Layer

from .sources import CLASSES, INPUTS

ACTIVATIONS = "identity", "relu", "leaky_relu", "sigmoid", "tanh", "gelu"


def usual(activation: str = "relu", *, drop: float = 0.0, **norm: Any) -> Callable[[], list[Layer]]:
    """Widths that fill no vector, an activation after BatchNorm and one after a bias."""

    def layers() -> list[Layer]:
        dropped = [bn.Dropout(drop)] if drop else []
        return [
            bn.Dense(INPUTS, 19), bn.BatchNorm(19, **norm), bn.Activation(activation), *dropped,
            bn.Dense(19, 8), bn.Activation(activation), bn.Dense(8, CLASSES),
        ]  # fmt: skip

    return layers


def apart(activation: str, slope: float = 0.01) -> Callable[[], list[Layer]]:
    """Activations that no other op applies: first, after dropout and after a sum."""

    def layers() -> list[Layer]:
        act = bn.Activation(activation, slope=slope)
        body = bn.Dense(9, 9), bn.Activation(activation, slope=slope)
        return [act, bn.Dense(INPUTS, 9), bn.Dropout(0.2), act, bn.Residual(*body), act, bn.Dense(9, CLASSES)]

    return layers


def residual() -> list[Layer]:
    """Sums in BatchNorm, apart, of residuals, and an activation after a sum."""
    inner = bn.Residual(bn.Dense(11, 11), bn.BatchNorm(11, decay=None))
    outer = bn.Residual(inner, bn.Dropout(0.25), bn.Dense(11, 11, weights="glorot"))
    last = bn.Residual(bn.Dense(11, 11), bn.Activation("tanh"), bn.Dense(11, 11), bn.BatchNorm(11))
    return [bn.Dense(INPUTS, 11), bn.BatchNorm(11), bn.Activation("gelu"), outer, last, bn.Activation("relu"),
            bn.Dense(11, CLASSES)]  # fmt: skip


def shared() -> list[Layer]:
    """A Dense and a BatchNorm that are used twice."""
    dense, norm = bn.Dense(10, 10, bias=True), bn.BatchNorm(10)
    return [bn.Dense(INPUTS, 10), norm, bn.Activation("tanh"), dense, norm, bn.Activation("sigmoid"), dense,
            bn.Dense(10, CLASSES)]  # fmt: skip


def wide() -> list[Layer]:
    """Sizes that are cut into blocks and strips."""
    return [bn.Dense(INPUTS, 150), bn.BatchNorm(150), bn.Activation("relu"), bn.Dense(150, 133), bn.BatchNorm(133),
            bn.Activation("gelu"), bn.Dropout(0.1), bn.Dense(133, CLASSES)]  # fmt: skip


def deep() -> list[Layer]:
    """Many small layers."""
    hidden = [[bn.Dense(13, 13), bn.BatchNorm(13), bn.Activation("leaky_relu")] for _ in range(5)]
    return [bn.Dense(INPUTS, 13), *itertools.chain(*hidden), bn.Dense(13, CLASSES)]


def bare() -> list[Layer]:
    """A linear classifier."""
    return [bn.Dense(INPUTS, CLASSES)]


def odd() -> list[Layer]:
    """Neighbors that seldom meet: a bias before BatchNorm, two of a kind, an activation at the end of a residual."""
    body = bn.Dense(7, 7), bn.BatchNorm(7), bn.Activation("leaky_relu", slope=0.3)
    return [bn.Dropout(0.2), bn.Dense(INPUTS, 7, bias=True), bn.BatchNorm(7), bn.BatchNorm(7, gamma=False),
            bn.Activation("tanh"), bn.Activation("relu"), bn.Residual(*body), bn.BatchNorm(7),
            bn.Residual(bn.BatchNorm(7)), bn.Dense(7, 7, bias=False), bn.Activation("sigmoid"),
            bn.Dense(7, CLASSES, bias=False), bn.BatchNorm(CLASSES)]  # fmt: skip


def single() -> list[Layer]:
    """One output."""
    return [bn.Dense(INPUTS, 9), bn.BatchNorm(9), bn.Activation("gelu"), bn.Dense(9, 1)]
