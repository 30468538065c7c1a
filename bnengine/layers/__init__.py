"""Layers: their parameters and the ops that they call."""

from .activation import Activation
from .base import Context, Layer, Placed, Pullback, chain, deliver, register
from .dense import Dense
from .dropout import Dropout
from .norm.batch_norm import BatchNorm
from .residual import Residual
from .structure import Fusion, build, config_of, named_handles, walk

__all__ = [
    "Activation",
    "BatchNorm",
    "Context",
    "Dense",
    "Dropout",
    "Fusion",
    "Layer",
    "Placed",
    "Pullback",
    "Residual",
    "build",
    "chain",
    "config_of",
    "deliver",
    "named_handles",
    "register",
    "walk",
]
