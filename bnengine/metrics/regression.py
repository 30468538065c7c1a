"""Metrics of regressions."""

from fractions import Fraction
from typing import ClassVar, Self

import numpy as np

from .._typing import Array
from ..errors import InputError
from .base import METRICS, read_outputs, read_weights
from .exact import ExactSum, product, rounded

_LARGEST = 1e100


def _read(name: str, outputs: Array, targets: Array, weights: Array | None) -> tuple[Array, Array, Array]:
    """Return outputs and targets (m, k), weights (m,), in float64, without the rows of weight 0."""
    outputs, targets = read_outputs(name, outputs), np.asarray(targets)
    targets = targets[:, None] if targets.ndim == 1 and outputs.shape[-1] == 1 else targets
    if targets.shape != outputs.shape or targets.dtype.kind not in "fiub":
        raise InputError(
            f"{name}: targets are {targets.dtype} of shape {targets.shape}. Outputs of shape {outputs.shape} need "
            "numbers of the same shape."
        )
    v = read_weights(name, weights, outputs.shape[:-1])
    v = np.ones(outputs[..., 0].size) if v is None else v
    outputs, targets = (a.reshape(-1, outputs.shape[-1])[v > 0].astype(np.float64) for a in (outputs, targets))
    if targets.size and not np.abs(targets).max() <= _LARGEST:  # NaN is not, either
        row = int(np.argmin((np.abs(targets) <= _LARGEST).all(axis=-1)))
        found = targets[row].tolist()
        raise InputError(
            f"{name}: the target of row {row} must be within +-{_LARGEST}, got {found}. Rescale the targets."
        )
    return outputs, targets, v[v > 0]


@METRICS.register
class MeanAbsoluteError:
    """Mean of |output - target| over rows, by weight, and outputs, in the targets' unit.

    Outputs and targets are (..., k), or (m,) for k = 1. An output that is not finite makes the value infinite. `update`
    raises InputError for shapes that do not fit or targets that are not finite.
    """

    name: ClassVar[str] = "mean_absolute_error"
    label: ClassVar[str] = "mean absolute error"
    higher_is_better: ClassVar[bool] = False
    percent: ClassVar[bool] = False

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Forget every row."""
        self._sum, self._weight, self._finite = ExactSum(), ExactSum(), True

    def update(self, outputs: Array, targets: Array, weights: Array | None = None) -> None:
        """Add a batch."""
        p, y, v = _read(self.name, outputs, targets, weights)
        self._weight.add(np.repeat(v, p.shape[1]))
        with np.errstate(over="ignore", invalid="ignore"):
            errors = np.abs(p - y) * v[:, None]
        if np.isfinite(errors).all():
            self._sum.add(errors)
        else:
            self._finite = False

    def merge(self, other: Self) -> None:
        """Add all rows of another MeanAbsoluteError."""
        self._sum.merge(other._sum)
        self._weight.merge(other._weight)
        self._finite &= other._finite

    def value(self) -> float:
        """Return the mean; InputError before any row of a weight above 0."""
        weight = self._weight.fraction()
        if weight == 0:
            raise InputError(f"{self.name}: no rows with a weight above 0 yet. Update it with a batch first.")
        return rounded(self._sum.fraction() / weight) if self._finite else float("inf")


class _Column:
    """Exact sums of one output: weights, w y, w y^2, w (y - p)^2."""

    def __init__(self) -> None:
        self.w, self.wy, self.wyy, self.residual = (ExactSum() for _ in range(4))

    def add(self, p: Array, y: Array, w: Array) -> None:
        self.w.add(w)
        for part in product(w, y):
            self.wy.add(part)
            for square in product(part, y):
                self.wyy.add(square)
        self.residual.add((y - p) ** 2 * w)

    def merge(self, other: "_Column") -> None:
        for mine, theirs in zip(vars(self).values(), vars(other).values(), strict=True):
            mine.merge(theirs)

    def value(self) -> Fraction:
        residual = self.residual.fraction()
        spread = self.wyy.fraction() - self.wy.fraction() ** 2 / self.w.fraction()
        if spread == 0:
            return Fraction(residual == 0)
        return 1 - residual / spread


@METRICS.register
class R2:
    """Share of the targets' variance that is explained: 1 - sum v (y - p)^2 / sum v (y - mean)^2, mean over outputs.

    1 is perfect, 0 as good as the mean, negative worse. The sum around the mean is computed without rounding, so a mean
    far above the spread costs no digits. If the targets do not vary, the value is 1 if the outputs equal them, else 0.
    An output that is not finite makes the value minus infinity. Outputs and targets are (..., k), or (m,) for k = 1.
    `update` raises InputError for shapes that do not fit or targets that are not finite.
    """

    name: ClassVar[str] = "r2"
    label: ClassVar[str] = "R2"
    higher_is_better: ClassVar[bool] = True
    percent: ClassVar[bool] = False

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Forget every row."""
        self._columns: list[_Column] = []
        self._finite = True

    def update(self, outputs: Array, targets: Array, weights: Array | None = None) -> None:
        """Add a batch."""
        p, y, v = _read(self.name, outputs, targets, weights)
        if not len(p):
            return
        self._fit(p.shape[1])
        if not (np.abs(p) <= _LARGEST).all():
            self._finite = False
            return
        for j, column in enumerate(self._columns):
            column.add(p[:, j], y[:, j], v)

    def _fit(self, outputs: int) -> None:
        self._columns = self._columns or [_Column() for _ in range(outputs)]
        if len(self._columns) != outputs:
            raise InputError(f"r2: {outputs} outputs after batches of {len(self._columns)}. Reset it between networks.")

    def merge(self, other: Self) -> None:
        """Add all rows of another R2."""
        self._finite &= other._finite
        if other._columns:
            self._fit(len(other._columns))
        for mine, theirs in zip(self._columns, other._columns, strict=False):
            mine.merge(theirs)

    def value(self) -> float:
        """Return the mean over the outputs; InputError before any row of a weight above 0."""
        if not self._columns:
            raise InputError("r2: no rows with a weight above 0 yet. Update it with a batch first.")
        if not self._finite:
            return float("-inf")
        return rounded(sum((column.value() for column in self._columns), Fraction(0)) / len(self._columns))
