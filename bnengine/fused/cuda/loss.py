"""Losses, value and gradient in one pass, and the rows classified right."""

from typing import Any

import numpy as np

from ... import ops
from ...runtime.memory import Outputs
from .._arguments import RULES, Call
from ._launch import INDEX, LANES, THREADS, Kernel, flat_grid, target_name, vector_of, version

FILE, HELD_PACKS = "loss.cu", 4
_SUMMED: dict[str, Any] = {"file": FILE, "scratch": "partial:double", "counters": "arrivals", "flags": "adds"}
SOFTMAX = Kernel(
    "softmax_cross_entropy", whole="class_weights:wide divisor:wide scale:wide",
    reads="logits target:Y sample_weights:wide", writes="value:wide dlogits",
    integers="rows classes", reals="label_smoothing", **_SUMMED,
)  # fmt: skip
ELEMENTWISE = Kernel(
    "elementwise_loss", whole="divisor:wide scale:wide", reads="prediction target:wide sample_weights:wide",
    writes="value:wide gradient",
    integers="rows outputs", **_SUMMED,
)  # fmt: skip
CORRECT = Kernel("correct", reads="output target:Y", writes="out:double", integers="rows classes", **_SUMMED)


@version(ops.softmax_cross_entropy)
def softmax_cross_entropy(to: Outputs, call: Call) -> None:
    """A warp a row, or a block where a row has more classes than a warp keeps in registers."""
    logits, kind, classes = call.logits, target_name(call.target), call.channels
    vector = vector_of(logits, classes, logits, call.gradient, None if kind == INDEX else call.target)
    group = LANES if classes <= LANES * HELD_PACKS * vector else THREADS
    grid = flat_grid(logits, call.rows * group)
    SOFTMAX(
        to, call, vector, group, kind, grid=grid, dlogits=call.gradient, partial=(grid, np.float64), classes=classes
    )


@version(ops.binary_cross_entropy)
@version(ops.mean_squared_error)
def elementwise(to: Outputs, call: Call) -> None:
    """Output by output, by the op's rule."""
    prediction = call.lead
    vector = vector_of(prediction, None, prediction, call.target, call.gradient)
    grid = flat_grid(prediction, prediction.size, vector)
    ELEMENTWISE(
        to, call, vector, f"bnengine::{RULES[call.op.name]}", grid=grid, prediction=prediction,
        partial=(grid, np.float64), outputs=call.channels,
    )  # fmt: skip


@version(ops.correct)
def correct(to: Outputs, call: Call) -> None:
    """A warp a row."""
    grid = flat_grid(call.output, call.rows * LANES)
    CORRECT(to, call, target_name(call.target), grid=grid, partial=(grid, np.float64), classes=call.channels)
