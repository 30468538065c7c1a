"""What a data set is for: a classification or a regression."""

import numpy as np

from ..errors import DataError
from ..validation import choice
from .dataset import TASKS, Dataset

MANY, FEW_ROWS = 20, 10  # more distinct numbers than this, with fewer rows each, may be classes or quantities
SAY = "Pass task='classification' or task='regression'"


def task_of(data: Dataset, task: str | None = None, *, say: str = SAY) -> str:
    """Return the task of a data set.

    The first of these that applies: `task`; `data.task`; "classification" for strings, bools and declared classes;
    "regression" for real numbers with fractions and for several columns of them; "classification" for whole numbers.

    Args:
        data: the data set, with targets.
        task: "classification", "regression", or None to decide by the data.
        say: how the user can name the task, for errors.

    Raises:
        DataError: one-hot rows, or more than 20 distinct whole numbers with fewer than 10 rows each, which may be
            classes or quantities.
    """
    if task is not None:
        return choice("task_of", "task", task, TASKS)
    if data.task is not None:
        return data.task
    y = data.y
    if y is None or y.dtype.kind == "U" or data.classes is not None:
        return "classification"
    if y.ndim == 2 and y.shape[1] > 1:
        _refuse_one_hot(data.name, y)
        return "regression" if y.dtype.kind == "f" else "classification"
    if y.dtype.kind == "f" and bool(np.any(np.floor(y) != y)):
        return "regression"
    distinct = len(np.unique(y))
    if distinct > MANY and len(y) < FEW_ROWS * distinct:
        raise DataError(
            f"{data.name}: y has {distinct} different whole numbers in {len(y)} rows, which may be classes or "
            f"quantities. {say}."
        )
    return "classification"


def _refuse_one_hot(name: str, y: np.ndarray) -> None:
    if bool(np.all((y == 0) | (y == 1))) and bool(np.all(np.sum(y, axis=1) == 1)):
        raise DataError(
            f"{name}: y must be one label a row, got one-hot rows of shape {y.shape}. Pass y.argmax(axis=1)."
        )
