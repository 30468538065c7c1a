"""Metrics of classifications: the share of rows that are correct."""

from typing import ClassVar, Self

import numpy as np

from .._typing import Array
from ..errors import InputError
from ..validation import flag, integer
from .base import METRICS, read_classes, read_outputs
from .exact import ExactSum, rounded


class _Share:
    """The share of correct rows, by weight, as two exact sums."""

    name: str
    higher_is_better: ClassVar[bool] = True
    percent: ClassVar[bool] = True

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Forget every row."""
        self._right, self._all = ExactSum(), ExactSum()

    def merge(self, other: Self) -> None:
        """Add all rows of another metric of the same name."""
        if other.name != self.name:
            raise InputError(f"{self.name}: cannot merge with {other.name}. Merge metrics with the same arguments.")
        self._right.merge(other._right)
        self._all.merge(other._all)

    def value(self) -> float:
        """Return the share, from 0 to 1; InputError before any row of a weight above 0."""
        total = self._all.fraction()
        if total == 0:
            raise InputError(f"{self.name}: no rows with a weight above 0 yet. Update it with a batch first.")
        return rounded(self._right.fraction() / total)

    def _count(self, right: Array, weights: Array | None) -> None:
        v = np.ones(right.shape) if weights is None else weights
        self._right.add(v[right])
        self._all.add(v)


@METRICS.register
class Accuracy(_Share):
    """The share of rows whose largest output is that of their class; of equal outputs the first counts as the largest.

    Outputs are (..., classes) with integer targets (...) or probabilities (..., classes); or one logit, (m, 1) or (m,),
    which means class 1 above 0. A row with an output that is not finite is wrong. `update` raises InputError for shapes
    or targets that do not fit.

    Args:
        each_output: whether every output is a separate yes-or-no question, with targets (m, outputs).
    """

    name = "accuracy"
    label: ClassVar[str] = "accuracy"

    def __init__(self, *, each_output: bool = False) -> None:
        super().__init__()
        self.each_output = flag("Accuracy", "each_output", each_output)

    def update(self, outputs: Array, targets: Array, weights: Array | None = None) -> None:
        """Add a batch."""
        if self.each_output:
            outputs = read_outputs(self.name, outputs)
            weights = None if weights is None else _repeated(np.asarray(weights), outputs.shape)
            outputs = outputs[..., None]
        scores, codes, v = read_classes(self.name, outputs, targets, weights)
        right = ~np.isnan(scores[:, 0]) & (np.argmax(scores, axis=-1) == codes)
        self._count(right, v)


@METRICS.register
class TopK(_Share):
    """The share of rows whose class is among the k largest outputs; of equal outputs the first counts as larger.

    Outputs and targets are those of `Accuracy`, which TopK(1) equals. A row with an output that is not finite is wrong.
    `update` raises InputError unless there are more than k classes: otherwise every answer would be correct.

    Args:
        k: how many outputs.
    """

    name = "top_k_accuracy"
    label: ClassVar[str] = "top-k accuracy"

    def __init__(self, k: int = 5) -> None:
        super().__init__()
        self.k = integer("TopK", "k", k, least=1)
        self.name = f"top_{self.k}_accuracy"

    def update(self, outputs: Array, targets: Array, weights: Array | None = None) -> None:
        """Add a batch."""
        scores, codes, v = read_classes(self.name, outputs, targets, weights)
        classes = scores.shape[1]
        if classes <= self.k:
            raise InputError(f"TopK({self.k}): k must be below the number of classes, got outputs of {classes}.")
        true_score = np.take_along_axis(scores, codes[:, None], axis=1)
        before = np.arange(classes) < codes[:, None]
        ahead = np.sum((scores > true_score) | ((scores == true_score) & before), axis=1)
        self._count(~np.isnan(true_score[:, 0]) & (ahead < self.k), v)


def _repeated(weights: Array, shape: tuple[int, ...]) -> Array:
    """Return weights of rows as weights of each of their outputs."""
    if weights.shape != shape[:-1]:
        raise InputError(f"accuracy: weights must have shape {shape[:-1]}, got {weights.shape}.")
    return np.broadcast_to(weights[..., None], shape)
