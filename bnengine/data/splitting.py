"""Split rows into training and validation: drawn from a seed, the same on every machine and backend."""

from fractions import Fraction

import numpy as np

from .._typing import Array
from ..arrays.random import Stream
from ..errors import DataError, InputError
from ..validation import choice, integer, number
from .dataset import TASKS, Dataset
from .labels import label_column
from .tasks import task_of


def split(y_or_n: Array | int, *, fraction: float = 0.2, seed: int, stratify: bool) -> tuple[Array, Array]:
    """Draw the rows that validate.

    Plain: round(n * fraction) rows, halves up, at least one of two or more. Stratified: the same number, and each class
    gives its share by the largest remainder (equal remainders: in the order of the labels). A class keeps at least one
    row in training, so a class of a single row does not count.

    Args:
        y_or_n: the labels (n,), or how many rows there are (plain only).
        fraction: the share of the rows that validates, 0 <= fraction < 1; 0 for no row.
        seed: of the draw; the result does not depend on the backend.
        stratify: whether to split each class separately.

    Returns:
        (training rows, validation rows): ascending indices, int64; together every row once.

    Raises:
        InputError: a fraction outside [0, 1), or `stratify` without one label a row.
    """
    fraction = number("split", "fraction", fraction, least=0, below=1, cure="0.2 is usual.")
    labels = None if isinstance(y_or_n, int) else np.asarray(y_or_n)
    n = integer("split", "the number of rows", y_or_n if labels is None else labels.shape[0], least=1)
    share = Fraction(fraction).limit_denominator(10**6)
    if stratify:
        if labels is None or labels.ndim != 1:
            got = "a count" if labels is None else f"targets of shape {labels.shape}"
            raise InputError(f"split: stratify needs one label a row, (n,), got {got}. Pass the labels.")
        codes = np.unique(labels, return_inverse=True)[1]
    else:
        codes = np.zeros(n, dtype=np.int64)
    sizes = np.bincount(codes)
    counts = _shares(sizes, share)
    drawn = Stream(seed, "split").permutation(n)
    by_class = drawn[np.argsort(codes[drawn], kind="stable")]
    starts = np.cumsum(sizes) - sizes
    chosen = np.zeros(n, dtype=bool)
    for start, count in zip(starts, counts, strict=True):
        chosen[by_class[start : start + count]] = True
    return np.flatnonzero(~chosen).astype(np.int64), np.flatnonzero(chosen).astype(np.int64)


def split_dataset(data: Dataset, *, fraction: float = 0.2, seed: int, task: str | None = None) -> tuple[Array, Array]:
    """Return (training rows, validation rows) of a data set: those its source reserves, else drawn by `split`.

    Args:
        data: the data set, with targets.
        fraction, seed: as in `split`.
        task: "classification" splits each class separately, "regression" all rows at once; None for that of the data
            set, see `task_of`.

    Raises:
        DataError: the data set has no targets, none that suit the task, or no row is left to validate.
        InputError: a wrong argument.
    """
    if task is not None:
        choice("split_dataset", "task", task, TASKS)
    if data.y is None:
        raise DataError(f"{data.name}: there are no targets y. Training needs them.")
    if data.validation is not None:
        training = np.ones(len(data), dtype=bool)
        training[data.validation] = False
        return np.flatnonzero(training).astype(np.int64), np.unique(data.validation)
    if task_of(data, task) == "classification":
        parts = split(label_column(data.y, data.name), fraction=fraction, seed=seed, stratify=True)
    else:
        parts = split(len(data), fraction=fraction, seed=seed, stratify=False)
    if fraction and not len(parts[1]):
        raise DataError(
            f"{data.name}: the share of rows to validate must leave some, got {fraction:g} of {len(data)} rows, where "
            "each class keeps one for training. Take 0 for no validation."
        )
    return parts


def _shares(sizes: Array, share: Fraction) -> list[int]:
    """Count the rows of each class that validate: its `share` by the largest remainder, all but one row at most."""
    quotas = [int(size) * share if size > 1 else Fraction(0) for size in sizes]
    counts = [int(quota) for quota in quotas]
    wanted = int(sum(quotas) + Fraction(1, 2))
    if share > 0:
        wanted = max(1, wanted)
    by_remainder = sorted(range(len(quotas)), key=lambda i: (counts[i] - quotas[i], i))
    for i in by_remainder:
        if sum(counts) < wanted and share > 0 and counts[i] < int(sizes[i]) - 1:
            counts[i] += 1
    return counts
