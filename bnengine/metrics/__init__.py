"""Metrics over a whole data set, accumulated batch by batch on the host.

Each metric has `update(outputs, targets, weights=None)`, `merge(other)`, `value()` and `reset()`. Counts and sums are
exact, so the value depends neither on the batches nor on the order of the rows (only `Loss` rounds within a batch, in
float64). Rows of weight 0 are ignored. If a row's output is NaN or infinite, classification metrics count the row as
wrong, and loss and regression metrics have the worst possible value.
"""

from .base import METRICS, Facts, Metric, facts_of
from .classification import Accuracy, TopK
from .confusion import ClassReport, ClassRow, ConfusionMatrix
from .loss import Loss
from .regression import R2, MeanAbsoluteError

__all__ = [
    "METRICS",
    "R2",
    "Accuracy",
    "ClassReport",
    "ClassRow",
    "ConfusionMatrix",
    "Facts",
    "Loss",
    "MeanAbsoluteError",
    "Metric",
    "TopK",
    "facts_of",
]
