"""Losses, value and gradient in one pass, and the rows classified right.

Rows are cut into blocks. The losses of rows, or of chunks of outputs, are an array that another launch sums up.
"""

import numpy as np

from ... import ops
from ..._typing import Array
from ...runtime.memory import Outputs
from .._arguments import RULES, Call, extent
from ._launch import Cut, Kernel, cut_rows, version

CHUNK = 1024  # outputs that have one sum
ABREAST = 16  # kAbreast of kernels/cpu/abreast.h
EXPENSIVE = 8  # the cost of an exponential, relative to moving an element

SOFTMAX = Kernel(
    "softmax_cross_entropy", whole="class_weights divisor scale", reads="logits target:void sample_weights",
    writes="losses:double gradient", integers="classes", flags="numbers", reals="smoothing",
)  # fmt: skip
ELEMENTWISE = Kernel(
    "elementwise_loss", whole="divisor scale", reads="prediction target sample_weights",
    writes="losses:double gradient", integers="rows outputs chunk",
)  # fmt: skip
LOSS_VALUE = Kernel(
    "loss_value", whole="divisor", reads="losses:double", writes="value", integers="terms", flags="adds"
)  # fmt: skip
CORRECT = Kernel("correct", reads="output target:void", writes="right:double", integers="classes", flags="numbers")


@version(ops.softmax_cross_entropy)
def softmax_cross_entropy(to: Outputs, call: Call) -> None:
    """Row by row."""
    logits, classes = call.logits, call.channels
    losses = to.array("the losses of rows", (call.rows,), np.float64, logits)
    SOFTMAX(
        to, call, along=_by_rows(logits), scratch=(classes + ABREAST) * logits.itemsize, losses=losses, classes=classes,
        target=_rows(call.target), sample_weights=_rows(call.sample_weights, numbers=True), numbers=_numbers(call),
        smoothing=call.label_smoothing,
    )  # fmt: skip
    _sum(to, call.divisor, losses, call.value, adds=call.adds)


@version(ops.binary_cross_entropy)
@version(ops.mean_squared_error)
def elementwise(to: Outputs, call: Call) -> None:
    """Output by output, by the op's rule."""
    prediction = call.lead
    chunks = -(-prediction.size // CHUNK)
    losses = to.array("the losses of chunks", (chunks,), np.float64, prediction)
    blocks = cut_rows(chunks, CHUNK, EXPENSIVE * prediction.itemsize).blocks
    along = Cut(None, chunks, 1, blocks)  # blocks of chunks are not blocks of rows: the launch is alone in its group
    ELEMENTWISE(
        to, call, RULES[call.op.name], along=along, prediction=prediction, losses=losses, outputs=call.channels,
        chunk=CHUNK,
    )  # fmt: skip
    _sum(to, call.divisor, losses, call.value, adds=call.adds)


@version(ops.correct)
def correct(to: Outputs, call: Call) -> None:
    """Row by row."""
    right = to.array("rows that are right", (call.rows,), np.float64, call.output)
    CORRECT(
        to, call, along=_by_rows(call.output), target=_rows(call.target), right=right, classes=call.channels,
        numbers=_numbers(call),
    )  # fmt: skip
    _sum(to, None, right, call.out, adds=call.adds)


def _by_rows(x: Array) -> Cut:
    """Blocks of rows that are as expensive as their exponentials."""
    return cut_rows(x.shape[0], max(x.shape[1], ABREAST), EXPENSIVE * x.itemsize)


def _sum(to: Outputs, divisor: Array | None, terms: Array, out: Array, *, adds: bool) -> None:
    """A second launch: it begins when the last block of the first has ended."""
    LOSS_VALUE(to, out, divisor=divisor, losses=terms, value=out, terms=terms.size, adds=adds)


def _numbers(call: Call) -> bool:
    """Whether targets are class numbers, not one number for each class."""
    return bool(call.target.dtype == np.int64)


def _rows(x: Array | None, *, numbers: bool = False) -> Array | None:
    """Class numbers or weights in one axis, or one row of numbers for each class."""
    if x is None:
        return None
    return x.reshape(-1) if numbers or x.dtype == np.int64 else x.reshape(extent(x))
