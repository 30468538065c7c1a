"""Metrics: their protocol, their registry, and checks of their arguments."""

import re
from typing import ClassVar, NamedTuple, Protocol, Self, runtime_checkable

import numpy as np

from .._typing import Array
from ..errors import InputError
from ..registry import Registry


@runtime_checkable
class Metric(Protocol):
    """A figure accumulated batch by batch."""

    @property
    def name(self) -> str:
        """The key in records: "accuracy", "top_5_accuracy" ..."""

    @property
    def higher_is_better(self) -> bool:
        """Whether the larger of two values is the better one."""

    def update(self, outputs: Array, targets: Array, weights: Array | None = None) -> None:
        """Add a batch: outputs (m, k) and their targets, with weights (m,) of the rows or None for ones."""

    def merge(self, other: Self) -> None:
        """Add all rows of another metric of the same kind."""

    def value(self) -> float:
        """Return the figure over all rows since the last reset."""

    def reset(self) -> None:
        """Forget every row."""


class RegisteredMetric(Metric, Protocol):
    """A metric in `METRICS`, which says how reports print it.

    Attributes:
        name: the key in records; "k" for the number in a name such as "top_5_accuracy".
        label: what a reader sees instead of the name.
        percent: whether the value is a share from 0 to 1, which charts show in percent.
    """

    label: ClassVar[str]
    percent: ClassVar[bool]


METRICS = Registry[RegisteredMetric]("metric")


class Facts(NamedTuple):
    """A metric's name for a reader, and which of two values is better (None: unknown)."""

    label: str
    higher_is_better: bool | None = None
    percent: bool = False


def facts_of(name: str) -> Facts:
    """Return the facts of the metric that records call `name`; of an unknown one, its name in words."""
    number = re.search(r"\d+", name)
    pattern = name if number is None or name in METRICS else name.replace(number[0], "k", 1)
    if pattern not in METRICS:
        return Facts(name.replace("_", " "))
    metric = METRICS[pattern]
    label = metric.label if number is None or pattern == name else metric.label.replace("k", number[0], 1)
    return Facts(label, bool(metric.higher_is_better), metric.percent)


def read_outputs(name: str, outputs: Array) -> Array:
    """Return a network's outputs in float64, (m, k); a vector (m,) is one output per row."""
    outputs = np.asarray(outputs)
    if outputs.dtype.kind not in "fiu" or outputs.ndim == 0:
        described = f"{outputs.dtype} of shape {outputs.shape}"
        raise InputError(f"{name}: outputs must be real numbers, (rows, outputs), got {described}.")
    outputs = outputs[:, None] if outputs.ndim == 1 else outputs
    return outputs.astype(np.float64, copy=False)


def read_weights(name: str, weights: Array | None, rows: tuple[int, ...]) -> Array | None:
    """Return weights of the rows in float64, flat, or None for ones."""
    if weights is None:
        return None
    weights = np.asarray(weights)
    if weights.shape != rows or weights.dtype.kind not in "fiub":
        described = f"{weights.dtype} of shape {weights.shape}"
        raise InputError(f"{name}: weights must be numbers of shape {rows}, got {described}.")
    weights = np.ravel(weights.astype(np.float64, copy=False))
    bad = ~(np.isfinite(weights) & (weights >= 0))
    if bad.any():
        row = int(np.argmax(bad))
        weight = float(weights[row])
        raise InputError(f"{name}: the weight of row {row} must be finite and at least 0, got {weight!r}.")
    return weights


def read_codes(name: str, targets: Array, shape: tuple[int, ...]) -> Array:
    """Return the class of each row as int64 codes, flat; `shape` (..., k) is that of the outputs.

    Of probabilities, the class is the largest one's. With one output the targets are 0, 1, or a probability, which
    means class 1 above one half.
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
            f"{name}: targets are {targets.dtype} of shape {targets.shape} for outputs of shape {shape}. "
            f"Give integer classes of shape {rows}"
            + (", or probabilities of all classes." if classes > 1 else ", or probabilities.")
        )
    limit = max(classes, 2) - 1
    if targets.size and not (targets.min() >= 0 and targets.max() <= limit):
        raise InputError(f"{name}: targets must be 0 to {limit}, got {targets.min()} to {targets.max()}.")
    flat = np.ravel(targets)
    return (flat > 0.5).astype(np.int64) if flat.dtype.kind == "f" else flat.astype(np.int64)


def _argmax(name: str, probabilities: Array) -> Array:
    if not np.isfinite(probabilities).all():
        row = int(np.argmin(np.isfinite(probabilities).all(axis=-1)))
        raise InputError(f"{name}: the target of row {row} is not finite. Leave that row out.")
    return np.argmax(probabilities, axis=-1)


def read_classes(name: str, outputs: Array, targets: Array, weights: Array | None) -> tuple[Array, Array, Array | None]:
    """Return scores (m, classes) in float64, codes (m,), weights (m,) or None, without the rows of weight 0.

    One logit l becomes the scores (0, l) of the classes 0 and 1: their softmax is its sigmoid. A row with an output
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
