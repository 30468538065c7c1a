"""What a metric is, and how its arguments are read."""

from typing import Protocol, Self, runtime_checkable

import numpy as np

from .._typing import Array
from ..errors import InputError


@runtime_checkable
class Metric(Protocol):
    """A figure gathered batch by batch; `higher_is_better` says which of two values is the better one."""

    @property
    def name(self) -> str:
        """What the figure is called in records: "accuracy", "top_5_accuracy" ..."""

    @property
    def higher_is_better(self) -> bool:
        """Whether the larger of two values is the better one."""

    def update(self, outputs: Array, targets: Array, weights: Array | None = None) -> None:
        """Take in a batch: outputs (m, k) and their targets, with weights (m,) of the rows or None for ones."""

    def merge(self, other: Self) -> None:
        """Take in all that another metric of the same kind has gathered."""

    def value(self) -> float:
        """The figure over all rows since the last reset."""

    def reset(self) -> None:
        """Forget every row."""


def read_outputs(name: str, outputs: Array) -> Array:
    """A network's outputs in float64, (m, k); a vector (m,) is one output a row."""
    outputs = np.asarray(outputs)
    if outputs.dtype.kind not in "fiu" or outputs.ndim == 0:
        given = f"{outputs.dtype} of shape {outputs.shape}"
        raise InputError(f"{name}: outputs are {given}; give real numbers, (rows, outputs)")
    outputs = outputs[:, None] if outputs.ndim == 1 else outputs
    return outputs.astype(np.float64, copy=False)


def read_weights(name: str, weights: Array | None, rows: tuple[int, ...]) -> Array | None:
    """Weights of the rows in float64, flat, or None for ones."""
    if weights is None:
        return None
    weights = np.asarray(weights)
    if weights.shape != rows or weights.dtype.kind not in "fiub":
        given = f"{weights.dtype} of shape {weights.shape}"
        raise InputError(f"{name}: weights are {given}; the rows need numbers of shape {rows}")
    weights = np.ravel(weights.astype(np.float64, copy=False))
    bad = ~(np.isfinite(weights) & (weights >= 0))
    if bad.any():
        row = int(np.argmax(bad))
        weight = float(weights[row])
        raise InputError(f"{name}: the weight of row {row} is {weight!r}; weights must be finite, 0 or more")
    return weights


def read_codes(name: str, targets: Array, shape: tuple[int, ...]) -> Array:
    """The class of each row as int64 codes, flat; `shape` (..., k) is that of the outputs.

    Probabilities give the class of the largest. One output asks a yes-or-no question: its targets are 0, 1, or a
    probability, which is a yes above one half.
    """
    targets = np.asarray(targets)
    rows, classes = shape[:-1], shape[-1]
    if targets.shape == shape and targets.dtype.kind == "f" and classes > 1:
        return _argmax(name, targets.reshape(-1, classes))
    if classes == 1 and targets.shape == shape:
        targets = targets[..., 0]
    kinds = "iubf" if classes == 1 else "iub"
    if targets.shape != rows or targets.dtype.kind not in kinds:
        raise InputError(
            f"{name}: targets are {targets.dtype} of shape {targets.shape} for outputs of shape {shape}; "
            f"give integer classes of shape {rows}"
            + (", or probabilities of all classes" if classes > 1 else ", or probabilities")
        )
    limit = max(classes, 2) - 1
    if targets.size and not (targets.min() >= 0 and targets.max() <= limit):
        raise InputError(f"{name}: targets from {targets.min()} to {targets.max()}; they must be 0 to {limit}")
    flat = np.ravel(targets)
    return (flat > 0.5).astype(np.int64) if flat.dtype.kind == "f" else flat.astype(np.int64)


def _argmax(name: str, probabilities: Array) -> Array:
    if not np.isfinite(probabilities).all():
        row = int(np.argmin(np.isfinite(probabilities).all(axis=-1)))
        raise InputError(f"{name}: the target of row {row} is not finite; leave that row out")
    return np.argmax(probabilities, axis=-1)


def read_classes(name: str, outputs: Array, targets: Array, weights: Array | None) -> tuple[Array, Array, Array | None]:
    """Scores (m, classes) in float64, codes (m,), weights (m,) or None, without the rows of weight 0.

    One logit l becomes the scores (0, l) of no and yes: the softmax of these is its sigmoid. A row with an output
    that is not finite gets NaN throughout.
    """
    outputs = read_outputs(name, outputs)
    codes = read_codes(name, targets, outputs.shape)
    v = read_weights(name, weights, outputs.shape[:-1])
    scores = outputs.reshape(-1, outputs.shape[-1])
    if scores.shape[1] == 1:
        scores = np.concatenate([np.zeros_like(scores), scores], axis=1)
    scores = np.where(np.isfinite(scores).all(axis=-1, keepdims=True), scores, np.nan)
    return (scores, codes, None) if v is None else (scores[v > 0], codes[v > 0], v[v > 0])
