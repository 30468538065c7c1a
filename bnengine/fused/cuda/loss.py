"""Losses, value and gradient in one pass, and the rows classified right."""

from typing import Any

import numpy as np

from ... import ops
from ..._typing import Array
from ...ops.loss import Loss
from ...runtime.memory import Outputs
from .._launch import extent
from ._launch import (
    INDEX,
    LANES,
    THREADS,
    Kernel,
    arithmetic,
    flat_grid,
    output,
    ready,
    scalar,
    vector_of,
    version,
)
from ._launch import storage as storage_of

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
HITS = Kernel("correct", reads="output target:Y", writes="out:double", integers="rows classes", **_SUMMED)


@version(ops.softmax_cross_entropy)
def softmax_cross_entropy(
    to: Outputs, logits: Array, target: Array, class_weights: Array | None, sample_weights: Array | None,
    divisor: Any, label_smoothing: float, scale: Array | None
) -> Loss:  # fmt: skip
    """A warp a row, or a block where a row has more classes than a warp keeps in registers."""
    logits = ready(to, logits)
    wide = arithmetic(logits)
    target, kind = _target(to, target, logits)
    class_weights, sample_weights = ready(to, class_weights, wide), ready(to, sample_weights, wide)
    divisor, scale = scalar(to, divisor, wide, logits), ready(to, scale, wide)
    rows, classes = extent(logits)
    value, dlogits = _outputs(to, logits)
    vector = vector_of(logits, classes, logits, dlogits, None if kind == INDEX else target)
    group = LANES if classes <= LANES * HELD_PACKS * vector else THREADS
    grid = flat_grid(logits, rows * group)
    SOFTMAX(
        to, logits, storage_of(logits), vector, group, kind, grid=grid, class_weights=class_weights,
        divisor=divisor, scale=scale, logits=logits, target=target, sample_weights=sample_weights, value=value,
        dlogits=dlogits, partial=(grid, np.float64), rows=rows, classes=classes, label_smoothing=label_smoothing,
        adds=to.adds("value"),
    )  # fmt: skip
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
    prediction = ready(to, prediction)
    wide = arithmetic(prediction)
    target, sample_weights = ready(to, target, wide), ready(to, sample_weights, wide)
    divisor, scale = scalar(to, divisor, wide, prediction), ready(to, scale, wide)
    rows, outputs = extent(prediction)
    value, gradient = _outputs(to, prediction)
    vector = vector_of(prediction, None, prediction, target, gradient)
    grid = flat_grid(prediction, prediction.size, vector)
    ELEMENTWISE(
        to, prediction, storage_of(prediction), vector, f"bnengine::{rule}", grid=grid, divisor=divisor,
        scale=scale, prediction=prediction, target=target, sample_weights=sample_weights, value=value,
        gradient=gradient, partial=(grid, np.float64), rows=rows, outputs=outputs, adds=to.adds("value"),
    )  # fmt: skip
    return Loss(value, gradient)


@version(ops.correct)
def correct(to: Outputs, output: Array, target: Array) -> Array:
    """A warp a row."""
    output = ready(to, output)
    target, kind = _target(to, target, output)
    rows, classes = extent(output)
    out = destination(to, "out", (1,), np.float64, output)
    grid = flat_grid(output, rows * LANES)
    arrays = {"output": output, "target": target, "out": out, "partial": (grid, np.float64)}
    scalars = {"rows": rows, "classes": classes, "adds": to.adds("out")}
    HITS(to, output, storage_of(output), kind, grid=grid, **arrays, **scalars)
    return out


destination = output  # `correct` has an argument of that name


def _target(to: Outputs, target: Array, like: Array) -> tuple[Array, str]:
    """Targets and their name in CUDA: class numbers of any integer type, or one number for each class, wide."""
    if target.dtype.kind in "iu":
        return ready(to, target, np.int64), INDEX
    target = ready(to, target, arithmetic(like))
    return target, storage_of(target)


def _outputs(to: Outputs, like: Array) -> tuple[Array, Array]:
    value = output(to, "value", (1,), arithmetic(like), like)
    return value, output(to, "dlogits", like.shape, like.dtype, like)
