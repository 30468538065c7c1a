"""Layers: their parameters and the ops that they call."""

from .activation import Activation
from .base import Layer, Pass, Pullback, chain, deliver, settle
from .dense import Dense
from .dropout import Dropout
from .norm.batch_norm import BatchNorm
from .residual import Residual
from .structure import build, config_of, labelled, named_handles, register, used_handles, walk

__all__ = [
    "Activation",
    "BatchNorm",
    "Dense",
    "Dropout",
    "Layer",
    "Pass",
    "Pullback",
    "Residual",
    "build",
    "chain",
    "config_of",
    "deliver",
    "labelled",
    "named_handles",
    "register",
    "settle",
    "used_handles",
    "walk",
]
