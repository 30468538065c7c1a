"""Losses, value and gradient in one pass, and the rows classified right.

Rows are cut into blocks. Their losses, or those of chunks of outputs, are an array that a launch of its own sums up.
"""

from typing import Any

import numpy as np

from ... import ops
from ..._typing import Array
from ...ops.loss import Loss
from ...runtime.memory import Outputs
from .._launch import extent
from ._launch import Cut, Kernel, cut_rows, flat, output, ready, scalar, version

CHUNK = 1024  # outputs that have one sum
ABREAST = 16  # kAbreast of kernels/cpu/abreast.h
EXPENSIVE = 8  # an exponential takes as long as so many elements that are only moved

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
HITS = Kernel("correct", reads="output target:void", writes="right:double", integers="classes", flags="numbers")


@version(ops.softmax_cross_entropy)
def softmax_cross_entropy(
    to: Outputs, logits: Array, target: Array, class_weights: Array | None, sample_weights: Array | None,
    divisor: Any, label_smoothing: float, scale: Array | None
) -> Loss:  # fmt: skip
    """Row by row."""
    logits, dtype = ready(to, logits), logits.dtype
    target = _target(to, target, dtype)
    class_weights, sample_weights = ready(to, class_weights, dtype), ready(to, sample_weights, dtype)
    divisor, scale = scalar(to, divisor, dtype, logits), ready(to, scale, dtype)
    rows, classes = extent(logits)
    value, dlogits = _outputs(to, logits)
    losses = to.array("the losses of rows", (rows,), np.float64, logits)
    along = cut_rows(rows, max(classes, ABREAST), EXPENSIVE * logits.itemsize)
    numbers = target.dtype == np.int64
    SOFTMAX(
        to, logits, along=along, scratch=(classes + ABREAST) * logits.itemsize, class_weights=class_weights,
        divisor=divisor, scale=scale, logits=flat(logits), target=target.reshape(-1) if numbers else flat(target),
        sample_weights=_rows(sample_weights), losses=losses, gradient=flat(dlogits), classes=classes, numbers=numbers,
        smoothing=label_smoothing,
    )  # fmt: skip
    _summed(to, divisor, losses, value, to.adds("value"))
    return Loss(value, dlogits)


@version(ops.binary_cross_entropy)
def binary_cross_entropy(
    to: Outputs, logits: Array, target: Array, sample_weights: Array | None, divisor: Any, scale: Array | None
) -> Loss:
    """A question an output."""
    return _elementwise(to, "BinaryCrossEntropy", logits, target, sample_weights, divisor, scale)


@version(ops.mean_squared_error)
def mean_squared_error(
    to: Outputs, prediction: Array, target: Array, sample_weights: Array | None, divisor: Any,
    scale: Array | None
) -> Loss:  # fmt: skip
    """A difference an output."""
    return _elementwise(to, "SquaredError", prediction, target, sample_weights, divisor, scale)


def _elementwise(
    to: Outputs, rule: str, prediction: Array, target: Array, sample_weights: Array | None, divisor: Any,
    scale: Array | None,
) -> Loss:  # fmt: skip
    prediction, dtype = ready(to, prediction), prediction.dtype
    target, sample_weights = ready(to, target, dtype), ready(to, sample_weights, dtype)
    divisor, scale = scalar(to, divisor, dtype, prediction), ready(to, scale, dtype)
    rows, outputs = extent(prediction)
    value, gradient = _outputs(to, prediction)
    chunks = -(-prediction.size // CHUNK)
    losses = to.array("the losses of chunks", (chunks,), np.float64, prediction)
    blocks = cut_rows(chunks, CHUNK, EXPENSIVE * prediction.itemsize).blocks
    along = Cut(None, chunks, 1, blocks)  # blocks of chunks are not blocks of rows: the launch is alone in its group
    ELEMENTWISE(
        to, prediction, rule, along=along, divisor=divisor, scale=scale, prediction=prediction, target=target,
        sample_weights=sample_weights, losses=losses, gradient=gradient, rows=rows, outputs=outputs, chunk=CHUNK,
    )  # fmt: skip
    _summed(to, divisor, losses, value, to.adds("value"))
    return Loss(value, gradient)


@version(ops.correct)
def correct(to: Outputs, output: Array, target: Array) -> Array:
    """Row by row."""
    output = ready(to, output)
    target = _target(to, target, output.dtype)
    rows, classes = extent(output)
    out = destination(to, "out", (1,), np.float64, output)
    right = to.array("rows that are right", (rows,), np.float64, output)
    along = cut_rows(rows, max(classes, ABREAST), EXPENSIVE * output.itemsize)
    numbers = target.dtype == np.int64
    of_rows = target.reshape(-1) if numbers else flat(target)
    HITS(to, output, along=along, output=flat(output), target=of_rows, right=right, classes=classes, numbers=numbers)
    _summed(to, None, right, out, to.adds("out"))
    return out


destination = output  # `correct` has an argument of that name


def _summed(to: Outputs, divisor: Array | None, terms: Array, out: Array, adds: bool) -> None:
    """A second launch: it may begin when the last block of the first has ended."""
    LOSS_VALUE(to, out, divisor=divisor, losses=terms, value=out, terms=terms.size, adds=adds)


def _target(to: Outputs, target: Array, dtype: Any) -> Array:
    """Class numbers of any integer type, or one number for each class in the dtype of the logits."""
    return ready(to, target, np.int64 if target.dtype.kind in "iu" else dtype)


def _rows(x: Array | None) -> Array | None:
    """One number a row, in one axis."""
    return None if x is None else x.reshape(-1)


def _outputs(to: Outputs, like: Array) -> tuple[Array, Array]:
    return output(to, "value", (1,), like.dtype, like), output(to, "dlogits", like.shape, like.dtype, like)
