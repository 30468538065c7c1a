"""The loss as a metric: its mean over all rows."""

from typing import ClassVar, Self

import numpy as np

from .._typing import Array
from ..errors import InputError
from ..losses import LossFunction
from ..validation import number
from .base import METRICS, read_outputs, read_weights
from .exact import ExactSum, rounded


@METRICS.register
class Loss:
    """The mean of a loss over all rows, weighted as the loss itself weighs them.

    `update` computes the loss of a batch in float64, whatever the dtype of the outputs; `add` takes a batch's mean and
    the total weight it was divided by. If any output was not finite the value is infinite.

    Args:
        function: the loss; None if only `add` is used.
    """

    name: ClassVar[str] = "loss"
    label: ClassVar[str] = "loss"
    higher_is_better: ClassVar[bool] = False
    percent: ClassVar[bool] = False

    def __init__(self, function: LossFunction | None = None) -> None:
        self.function = function
        self.reset()

    def reset(self) -> None:
        """Forget every row."""
        self._sum, self._weight, self._finite = ExactSum(), ExactSum(), True

    def update(self, outputs: Array, targets: Array, weights: Array | None = None) -> None:
        """Add a batch: outputs, targets and weights as the loss function takes them. InputError without a function."""
        if self.function is None:
            raise InputError(
                "loss: there is no loss function. Make it with Loss(function), or call add(mean, total weight)."
            )
        outputs = read_outputs(self.name, outputs)
        width = outputs.shape[-1]
        targets = self.function.targets(targets, width)
        v = read_weights(self.name, weights, outputs.shape[:1])
        if v is not None:
            outputs, targets, v = outputs[v > 0], targets[v > 0], v[v > 0]
        if not len(outputs):
            return
        if not np.isfinite(outputs).all():
            self._finite = False
            return
        if targets.dtype.kind == "f":
            targets = targets.astype(np.float64, copy=False)
        spread = None if v is None else np.ascontiguousarray(np.broadcast_to(_aligned(v, outputs), outputs.shape[:-1]))
        constants = self.function.constants(width)
        with np.errstate(over="ignore", invalid="ignore"):
            value = self.function(outputs, targets, spread, constants, np.ones(1)).value
        self._take(float(value[0]), self.function.total(targets, v, width))

    def add(self, mean: float, weight: float) -> None:
        """Add a batch by its mean loss and total weight (rows, if there are no weights)."""
        weight = number("loss", "the total weight of a batch", weight, least=0)
        self._take(float(mean) * weight if weight else 0.0, weight)

    def _take(self, total: float, weight: float) -> None:
        if not np.isfinite(total):
            self._finite = False
            return
        self._sum.add(total)
        self._weight.add(weight)

    def merge(self, other: Self) -> None:
        """Add all rows of another Loss."""
        self._sum.merge(other._sum)
        self._weight.merge(other._weight)
        self._finite &= other._finite

    def value(self) -> float:
        """Return the mean; InputError before any row of a weight above 0."""
        if not self._finite:
            return float("inf")
        weight = self._weight.fraction()
        if weight == 0:
            raise InputError("loss: no rows with a weight above 0 yet. Update it with a batch first.")
        return rounded(self._sum.fraction() / weight)


def _aligned(weights: Array, outputs: Array) -> Array:
    """Return weights of samples, (m,), with an axis for each further one of the rows."""
    return weights.reshape((-1,) + (1,) * (outputs.ndim - 2))
