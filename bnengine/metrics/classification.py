"""Metrics of answers that are classes: how many rows got the right one."""

from typing import ClassVar, Self

import numpy as np

from .._typing import Array
from ..errors import InputError
from ..validation import integer
from .base import read_classes, read_outputs
from .exact import ExactSum, rounded


class _Share:
    """The share of rows that are right, by weight, kept as two exact sums."""

    higher_is_better: ClassVar[bool] = True

    def __init__(self, name: str) -> None:
        self.name = name
        self.reset()

    def reset(self) -> None:
        """Forget every row."""
        self._right, self._all = ExactSum(), ExactSum()

    def merge(self, other: Self) -> None:
        """Take in all that another metric of the same name has gathered."""
        if other.name != self.name:
            raise InputError(f"{self.name}: cannot merge with {other.name}; merge metrics made alike")
        self._right.merge(other._right)
        self._all.merge(other._all)

    def value(self) -> float:
        """The share, from 0 to 1; InputError before any row of a weight above 0."""
        total = self._all.fraction()
        if total == 0:
            raise InputError(f"{self.name}: no rows with a weight above 0 were given; update it with a batch first")
        return rounded(self._right.fraction() / total)

    def _count(self, right: Array, weights: Array | None) -> None:
        v = np.ones(right.shape) if weights is None else weights
        self._right.add(v[right])
        self._all.add(v)


class Accuracy(_Share):
    """The share of rows whose largest output is that of their class; the first of equal ones counts as the largest.

    outputs (..., classes) with integer targets (...) or probabilities (..., classes); or one logit, (m, 1) or (m,),
    which says class 1 where it is above 0. With `each_output=True` every output is such a yes-or-no question of its
    own, with targets (m, outputs). A row with an output that is not finite is wrong. InputError for shapes or targets
    that do not fit.
    """

    def __init__(self, *, each_output: bool = False) -> None:
        super().__init__("accuracy")
        self.each_output = each_output

    def update(self, outputs: Array, targets: Array, weights: Array | None = None) -> None:
        """Take in a batch."""
        if self.each_output:
            outputs = read_outputs(self.name, outputs)
            weights = None if weights is None else _repeated(np.asarray(weights), outputs.shape)
            outputs = outputs[..., None]
        scores, codes, v = read_classes(self.name, outputs, targets, weights)
        right = ~np.isnan(scores[:, 0]) & (np.argmax(scores, axis=-1) == codes)
        self._count(right, v)


class TopK(_Share):
    """The share of rows whose class is among the k largest outputs; of equal outputs the first counts as larger.

    Arguments as for `Accuracy`, which TopK(1) equals. A row with an output that is not finite is wrong. InputError
    where there are not more than k classes, since every answer would be right.
    """

    def __init__(self, k: int = 5) -> None:
        k = integer("TopK", "k", k, least=1)
        super().__init__(f"top_{k}_accuracy")
        self.k = k

    def update(self, outputs: Array, targets: Array, weights: Array | None = None) -> None:
        """Take in a batch."""
        scores, codes, v = read_classes(self.name, outputs, targets, weights)
        classes = scores.shape[1]
        if classes <= self.k:
            raise InputError(f"TopK({self.k}): the outputs have {classes} classes; choose a k below {classes}")
        own = np.take_along_axis(scores, codes[:, None], axis=1)
        before = np.arange(classes) < codes[:, None]
        ahead = np.sum((scores > own) | ((scores == own) & before), axis=1)
        self._count(~np.isnan(own[:, 0]) & (ahead < self.k), v)


def _repeated(weights: Array, shape: tuple[int, ...]) -> Array:
    """Weights of rows as weights of each of their outputs."""
    if weights.shape != shape[:-1]:
        raise InputError(f"accuracy: weights of shape {weights.shape}; the rows need {shape[:-1]}")
    return np.broadcast_to(weights[..., None], shape)
