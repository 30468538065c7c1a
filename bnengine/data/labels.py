"""The user's class labels and the codes 0 ... k - 1 that a network is trained on."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from .._typing import Array
from ..errors import DataError, InputError

_KINDS = {"U": "strings", "i": "integers", "u": "integers", "b": "bools", "f": "whole numbers"}


def _shown(labels: Array) -> str:
    """Format at most eight labels for a message."""
    shown = ", ".join(repr(label) for label in labels[:8].tolist())
    return shown + (f" ... ({len(labels)} in all)" if len(labels) > 8 else "")


def label_column(y: Array, name: str, rows: Array | None = None) -> Array:
    """Return targets as one column of labels, (m,); errors number the rows by `rows` (m,).

    Raises:
        DataError: several columns (one-hot codes), or real numbers that are not whole.
    """
    column = y[:, 0] if y.ndim == 2 and y.shape[1] == 1 else y
    if column.ndim != 1:
        raise DataError(
            f"{name}: class labels must be one column, (samples,), got shape {y.shape}. "
            f"For one-hot codes pass y.argmax(axis=1), or train a regression."
        )
    if column.dtype.kind == "f":
        whole = np.floor(column) == column
        if not whole.all():
            first = int(np.argmin(whole))
            raise DataError(
                f"{name}: y, row {_number(first, rows)} must be a string, a whole number or a bool for a "
                f"classification, got {float(column[first])!r}. For real targets "
                "train a regression (loss mean_squared_error)."
            )
    return column


def _number(position: int, rows: Array | None) -> int:
    return position if rows is None else int(rows[position])


def _whole(known: Array, wanted: Array) -> tuple[Array, Array, Array]:
    """Return classes and labels, whole numbers of any dtype, in one integer dtype, and which labels it can hold.

    NumPy compares int64 with uint64, and whole floats with either, as float64, in which large numbers are equal.
    """
    if wanted.dtype.kind == "b":
        wanted = wanted.astype(np.int64)
    least, most, dtype = (0, 2**64, np.uint64) if known.min() >= 0 else (-(2**63), 2**63, np.int64)
    limits = (float(least), float(most)) if wanted.dtype.kind == "f" else (least, most)
    possible = np.asarray((wanted >= limits[0]) & (wanted < limits[1]))
    return known.astype(dtype), np.where(possible, wanted, 0).astype(dtype), possible


@dataclass(frozen=True, eq=False)
class Labels:
    """The classes of a data set: `values` are the distinct labels in order, the code of values[i] is i."""

    values: Array

    @classmethod
    def fit(
        cls, y: Array, classes: tuple[str | int | float | bool, ...] | None, name: str, rows: Array | None = None
    ) -> "Labels":
        """Return the classes that a source lists, or those in `y` (m,), sorted; errors number rows by `rows` (m,).

        Raises:
            DataError: targets that are not labels, or a single class.
        """
        column = label_column(y, name, rows)
        values = np.unique(column if classes is None else np.asarray(classes))
        if len(values) < 2:
            raise DataError(
                f"{name}: every training row has the label {values[0].item()!r}. A classification needs at least two "
                "classes."
            )
        return cls(values)

    def shown(self) -> str:
        """Return at most eight of the labels as text."""
        return _shown(self.values)

    def __len__(self) -> int:
        return len(self.values)

    def codes(self, y: Array, name: str, rows: Array | None = None) -> Array:
        """Return the codes (m,), int64, of labels (m,); errors number the rows by `rows` (m,).

        Raises:
            DataError: a label that training has not seen, or labels of another kind.
        """
        column = label_column(np.asarray(y), name, rows)
        text = self.values.dtype.kind == "U"
        if (column.dtype.kind == "U") != text:
            raise DataError(
                f"{name}: the labels are {_KINDS[column.dtype.kind]} ({_shown(np.unique(column))}), the model's "
                f"{_KINDS[self.values.dtype.kind]} ({_shown(self.values)}). Give labels of the model's kind."
            )
        known, wanted, possible = (self.values, column, None) if text else _whole(self.values, column)
        codes = np.minimum(np.searchsorted(known, wanted), len(known) - 1).astype(np.int64)
        wrong = known[codes] != wanted if possible is None else (known[codes] != wanted) | ~possible
        if wrong.any():
            first = int(np.argmax(wrong))
            raise DataError(
                f"{name}: y, row {_number(first, rows)} must be one of the model's classes, {_shown(self.values)}, "
                f"got {column[first].item()!r}. Leave the row out."
            )
        return codes

    def labels(self, codes: Array) -> Array:
        """Return the user's labels for codes of any shape.

        Raises:
            InputError: a code outside 0 ... k - 1.
        """
        array = np.asarray(codes)
        if array.dtype.kind not in "iu" or (array.size and (array.min() < 0 or array.max() >= len(self.values))):
            raise InputError(f"labels: codes must be integers from 0 to {len(self.values) - 1}, got {codes!r}.")
        return self.values[array]

    def to_json(self) -> dict[str, Any]:
        """Return the labels as JSON values; Python's numbers and strings keep every bit there."""
        return {"dtype": self.values.dtype.str, "values": self.values.tolist()}

    @classmethod
    def from_json(cls, state: Mapping[str, Any]) -> "Labels":
        """Return the labels that `to_json` wrote."""
        return cls(np.asarray(state["values"], dtype=np.dtype(state["dtype"])))
