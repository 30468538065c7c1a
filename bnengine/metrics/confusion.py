"""The confusion matrix, and figures of each class."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, Self

import numpy as np

from .._typing import Array
from ..errors import InputError
from ..validation import integer
from . import tables
from .base import METRICS, read_classes
from .exact import ExactSum, rounded

_WIDEST = 20  # classes whose counts a table shows; above that it shows the figures of each class only


@dataclass(frozen=True)
class ClassRow:
    """Figures of one class: precision tp/(tp + fp), recall tp/(tp + fn), F1 2 tp/(2 tp + fp + fn), support tp + fn."""

    label: str
    precision: float
    recall: float
    f1: float
    support: float


@dataclass(frozen=True)
class ClassReport:
    """The figures of every class, their means and the accuracy.

    `macro` is the plain mean over the classes that occur, as true or as predicted ones; `weighted` is that by support.
    """

    classes: tuple[ClassRow, ...]
    macro: ClassRow
    weighted: ClassRow
    accuracy: float

    def to_dict(self) -> dict[str, Any]:
        """Return the report as JSON values."""
        return asdict(self)


@METRICS.register
class ConfusionMatrix:
    """Counts of rows by true class (down) and predicted class (across), by weight if weights are given.

    The prediction is the largest output, the first of equal ones; one logit, (m, 1) or (m,), means class 1 above 0, and
    needs classes=2. A row with an output that is not finite has no predicted class: it is counted in `not_finite`,
    (classes,), and is wrong. `update` raises InputError for shapes or targets that do not fit.

    Args:
        classes: how many, at least 2.
    """

    name: ClassVar[str] = "confusion"
    label: ClassVar[str] = "accuracy (confusion matrix)"
    higher_is_better: ClassVar[bool] = True
    percent: ClassVar[bool] = True

    def __init__(self, classes: int) -> None:
        self.classes = integer("ConfusionMatrix", "classes", classes, least=2)
        self.reset()

    def reset(self) -> None:
        """Forget every row."""
        self._counts = np.zeros((self.classes, self.classes + 1), np.int64)  # the last column: no prediction
        self._weights: dict[int, ExactSum] = {}  # by place in the flattened counts

    def update(self, outputs: Array, targets: Array, weights: Array | None = None) -> None:
        """Add a batch."""
        scores, codes, v = read_classes("ConfusionMatrix", outputs, targets, weights)
        if scores.shape[1] != self.classes:
            found = scores.shape[1]
            raise InputError(f"ConfusionMatrix({self.classes}): outputs must have {self.classes} classes, got {found}.")
        predicted = np.where(np.isnan(scores[:, 0]), self.classes, np.argmax(scores, axis=-1))
        places = codes * (self.classes + 1) + predicted
        if v is None:
            self._counts += np.bincount(places, minlength=self._counts.size).reshape(self._counts.shape)
            return
        for place in np.unique(places).tolist():
            self._weights.setdefault(place, ExactSum()).add(v[places == place])

    def merge(self, other: Self) -> None:
        """Add all rows of another matrix of as many classes."""
        if other.classes != self.classes:
            raise InputError(
                f"ConfusionMatrix({self.classes}): cannot merge with a matrix of {other.classes} classes. Merge those "
                "of the same classes."
            )
        self._counts += other._counts
        for place, total in other._weights.items():
            self._weights.setdefault(place, ExactSum()).merge(total)

    def _cells(self) -> Array:
        if not self._weights:
            return self._counts
        cells = self._counts.astype(np.float64).ravel()
        for place, total in self._weights.items():
            cells[place] = rounded(total.fraction() + int(self._counts.flat[place]))
        return cells.reshape(self._counts.shape)

    @property
    def matrix(self) -> Array:
        """Counts (classes, classes), true class down, predicted across: int64, or float64 if weights were given."""
        return self._cells()[:, :-1].copy()

    @property
    def not_finite(self) -> Array:
        """Rows of each class, (classes,), whose outputs were not all finite."""
        return self._cells()[:, -1].copy()

    def value(self) -> float:
        """Return the accuracy; InputError before any row of a weight above 0."""
        cells = self._cells()
        total = float(cells.sum())
        if total == 0:
            raise InputError("ConfusionMatrix: no rows with a weight above 0 yet. Update it with a batch first.")
        return float(np.trace(cells)) / total

    def report(self, labels: Sequence[Any] | None = None) -> ClassReport:
        """Return precision, recall, F1 and support of every class, as scikit-learn has them.

        0/0 counts as 0. A class that occurs neither as true nor as predicted one does not count in `macro`.

        Args:
            labels: the classes' names in the order of their codes; None for the codes.

        Raises:
            InputError: another number of labels, or no rows yet.
        """
        accuracy, names, cells = self.value(), self._names(labels), self._cells()
        correct, support = np.diagonal(cells), cells.sum(axis=1)
        called = cells[:, :-1].sum(axis=0)
        figures = np.stack([_ratio(correct, called), _ratio(correct, support), _ratio(2 * correct, called + support)])
        total = support.sum()
        rows = tuple(_row(*figures_of) for figures_of in zip(names, figures.T, support, strict=True))
        macro = _row("macro", figures[:, (support > 0) | (called > 0)].mean(axis=1), total)
        return ClassReport(rows, macro, _row("weighted", figures @ support / total, total), accuracy)

    def table(self, labels: Sequence[Any] | None = None) -> Any:
        """Return the counts (up to 20 classes) with each class's figures, as a table of rich in colors."""
        from rich.text import Text

        heads, rows = self._cells_of_text(labels)
        styled = [
            [Text(cell, style=self._style(number, place, cell)) for place, cell in enumerate(row)]
            for number, row in enumerate(rows)
        ]
        return tables.table(heads, styled, numbers=range(1, len(heads)), lines=False)

    def text(self, labels: Sequence[Any] | None = None) -> str:
        """Return the same table as plain text, one line per class."""
        heads, rows = self._cells_of_text(labels)
        return tables.table_text(heads, rows, numbers=range(1, len(heads)))

    def _style(self, row: int, place: int, cell: str) -> str:
        if not self._shows_counts() or row >= self.classes or not 1 <= place <= self._columns():
            return "bold" if place == 0 else ""
        if place == row + 1:
            return "bold green"
        return "dim" if cell == "·" else "red"

    def _shows_counts(self) -> bool:
        return self.classes <= _WIDEST

    def _columns(self) -> int:
        return self.classes + bool(self.not_finite.any()) if self._shows_counts() else 0

    def _cells_of_text(self, labels: Sequence[Any] | None) -> tuple[list[str], list[list[str]]]:
        report, cells = self.report(labels), self._cells()
        names = [row.label for row in report.classes]
        counts = [*names, "not finite"][: self._columns()]
        figures = ["precision", "recall", "F1", "rows"]
        heads = ["true \\ predicted" if counts else "class", *counts, *figures]
        rows = []
        for number, row in enumerate(report.classes):
            shown = ["·" if c == 0 else _number(c) for c in cells[number, : len(counts)].tolist()]
            rows.append([row.label, *shown, *_figures(row)])
        blank = [""] * len(counts)
        rows += [[row.label, *blank, *_figures(row)] for row in (report.macro, report.weighted)]
        rows.append(["accuracy", *blank, "", "", f"{report.accuracy:.4f}", _number(report.macro.support)])
        return heads, rows

    def _names(self, labels: Sequence[Any] | None) -> list[str]:
        names = [str(label) for label in (range(self.classes) if labels is None else labels)]
        if len(names) != self.classes:
            raise InputError(f"ConfusionMatrix({self.classes}): labels must be one per class, got {len(names)}.")
        return names


def _row(label: str, figures: Array, support: Array) -> ClassRow:
    precision, recall, f1 = figures.tolist()
    return ClassRow(label, precision, recall, f1, support.item())


def _ratio(above: Array, below: Array) -> Array:
    """above / below in float64, 0 where both are 0."""
    return np.divide(above, below, out=np.zeros(len(above)), where=below != 0)


def _number(count: float) -> str:
    return f"{count:,}" if isinstance(count, int) else f"{count:,.6g}"


def _figures(row: ClassRow) -> list[str]:
    return [f"{row.precision:.4f}", f"{row.recall:.4f}", f"{row.f1:.4f}", _number(row.support)]
