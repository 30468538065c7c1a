"""Figures of merit over a whole data set, gathered batch by batch on the host.

Each metric has `update(outputs, targets, weights=None)`, `merge(other)`, `value()` and `reset()`. Counts and sums are
exact, so that the value depends neither on how the rows were cut into batches nor on their order (`Loss` alone rounds
within a batch, in float64). Rows of weight 0 count for nothing. A network's outputs may be NaN or infinite: such a
row is a wrong answer to a classification metric and makes the value of a loss or regression metric the worst there
is.
"""

from .base import Metric
from .classification import Accuracy, TopK
from .confusion import ClassReport, ClassRow, ConfusionMatrix
from .loss import Loss
from .regression import R2, MeanAbsoluteError

__all__ = [
    "R2",
    "Accuracy",
    "ClassReport",
    "ClassRow",
    "ConfusionMatrix",
    "Loss",
    "MeanAbsoluteError",
    "Metric",
    "TopK",
]
