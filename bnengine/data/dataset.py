"""A data set: raw inputs, raw targets, and what their file says about them."""

from dataclasses import dataclass

import numpy as np

from .._typing import Array
from ..errors import DataError
from ..validation import choice
from .checks import as_numpy, check_finite, check_inputs, check_targets, row_and_feature, text_labels

TASKS = ("classification", "regression")


@dataclass(frozen=True, eq=False, repr=False)
class Dataset:
    """Raw data, one row of `x` and of `y` for each sample; checked when it is created.

    `load` returns one. `Preprocessing.fit` learns from it how to turn raw rows into a network's numbers.

    Attributes:
        x: (samples, features) or (samples, height, width, ...), of any real, integer or bool dtype; it may be a
            memory-mapped file, which is read in chunks and never loaded whole.
        y: labels (samples,), strings, integers with gaps or bools; or real numbers, (samples,) or (samples, targets);
            None without targets.
        name: what messages call the data: the file, or "digits".
        classes: every possible label, in order, if the source lists them; None to take those of the training rows.
        validation: indices of the rows that the source reserves for validation; None if it reserves none.
        columns: the names of the features, if the source has names; None for those of an x with `columns` of text,
            such as a DataFrame.
        target: the name of the target column, if the source has names.
        task: "classification" or "regression"; None to decide by the targets, see `task_of`.

    Raises:
        DataError: empty arrays, a wrong dtype, different numbers of rows, NaN or infinity; the message names the place.
    """

    x: Array
    y: Array | None = None
    name: str = "data"
    classes: tuple[str | int | float | bool, ...] | None = None
    validation: Array | None = None
    columns: tuple[str, ...] | None = None
    target: str | None = None
    task: str | None = None

    def __post_init__(self) -> None:
        if self.task is not None:
            choice("Dataset", "task", self.task, TASKS)
        if self.columns is None:
            object.__setattr__(self, "columns", column_names(self.x))
        x = as_numpy(self.x, self.name, "x")
        check_inputs(x, self.name)
        check_finite(x, self.name, row_and_feature("x"))
        object.__setattr__(self, "x", x)
        if self.y is not None:
            y = text_labels(as_numpy(self.y, self.name, "y"), self.name)
            check_targets(y, x.shape[0], self.name)
            check_finite(y, self.name, row_and_feature("y"))
            object.__setattr__(self, "y", y)
        if self.columns is not None and len(self.columns) != x.shape[-1]:
            raise DataError(
                f"{self.name}: columns must have one name per feature ({x.shape[-1]}), got {len(self.columns)}."
            )
        if self.validation is not None:
            rows = check_indices(self.validation, x.shape[0], f"{self.name}: validation")
            object.__setattr__(self, "validation", rows)

    def __len__(self) -> int:
        return int(self.x.shape[0])

    def __repr__(self) -> str:
        y = "no targets" if self.y is None else f"y {self.y.shape} {self.y.dtype}"
        return f"Dataset({self.name!r}, x {self.x.shape} {self.x.dtype}, {y})"

    @property
    def sample_shape(self) -> tuple[int, ...]:
        """The shape of one raw sample."""
        return tuple(int(n) for n in self.x.shape[1:])


def column_names(x: object) -> tuple[str, ...] | None:
    """Return the names of the columns of a DataFrame; None for anything else, and for names that are no text."""
    names = getattr(x, "columns", None)
    if names is None or callable(names) or not all(isinstance(name, str) for name in names):
        return None
    return tuple(names)


def check_indices(indices: Array, rows: int, what: str) -> Array:
    """Return indices of rows as int64, checked to be in 0 ... rows - 1.

    Raises:
        DataError: not a one-dimensional array of integers, or an index outside the data.
    """
    indices = np.asarray(indices)
    if indices.ndim != 1 or (indices.dtype.kind not in "iu" and indices.size):
        raise DataError(
            f"{what}: indices must be a one-dimensional array of integers, got {indices.dtype} {indices.shape}."
        )
    if indices.size and (indices.min() < 0 or indices.max() >= rows):
        outside = int(indices[(indices < 0) | (indices >= rows)][0])
        raise DataError(f"{what}: index {outside} is outside the data's {rows} rows (0 to {rows - 1}).")
    return indices.astype(np.int64)


def joined(train: Dataset, valid: Dataset, name: str) -> Dataset:
    """Join a training part and a validation part; the rows of the second become the `validation` rows.

    Raises:
        DataError: the samples of the two parts differ in shape or dtype, or only one of them has targets.
    """
    if train.sample_shape != valid.sample_shape or train.x.dtype != valid.x.dtype:
        raise DataError(
            f"{name}: the training part's samples are {train.sample_shape} {train.x.dtype}, "
            f"the validation part's {valid.sample_shape} {valid.x.dtype}. They must be of one kind."
        )
    if train.y is None or valid.y is None:
        if train.y is not None or valid.y is not None:
            raise DataError(
                f"{name}: only one of the training and the validation part has targets. Give both targets, or none."
            )
        y = None
    elif train.y.shape[1:] != valid.y.shape[1:] or (train.y.dtype.kind == "U") != (valid.y.dtype.kind == "U"):
        raise DataError(
            f"{name}: the training part's targets are {train.y.shape[1:]} {train.y.dtype} a row, "
            f"the validation part's {valid.y.shape[1:]} {valid.y.dtype}. They must be of one kind."
        )
    else:
        y = np.concatenate([train.y, valid.y])
    return Dataset(
        x=np.concatenate([train.x, valid.x]),
        y=y,
        name=name,
        validation=np.arange(len(train), len(train) + len(valid), dtype=np.int64),
    )
