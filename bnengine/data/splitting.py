"""Which rows train and which validate: drawn from a seed, the same on every machine and every backend."""

from fractions import Fraction

import numpy as np

from .._typing import Array
from ..arrays.random import Stream
from ..errors import DataError, InputError
from .dataset import Dataset


def split(y_or_n: Array | int, *, fraction: float = 0.2, seed: int, stratify: bool) -> tuple[Array, Array]:
    """Indices of the training rows and of the validation rows, each rising, int64, together every row once.

    Plain: round(n * fraction) rows validate, halves up, at least one of two or more. Stratified: the same number, of
    which each class gives its share by the largest remainder (equal remainders: in the order of the labels); a class
    always keeps a row in training, and one of a single member is left out of the count. `fraction` 0 leaves nothing
    to validate.

    Args:
        y_or_n: the labels (n,), or how many rows there are (plain only).
        fraction: the share of the rows that validates, 0 <= fraction < 1.
        seed: of the draw; the backend plays no part in it.
        stratify: whether each class is divided by itself.

    Raises:
        InputError: a fraction outside [0, 1), or `stratify` without one label a row.
    """
    if not 0 <= fraction < 1:
        raise InputError(f"split: fraction is {fraction}; it must be at least 0 and below 1, for example 0.2")
    labels = None if isinstance(y_or_n, int) else np.asarray(y_or_n)
    n = y_or_n if labels is None else int(labels.shape[0])
    if n < 1:
        raise InputError(f"split: there are {n} rows; at least one is needed")
    share = Fraction(fraction).limit_denominator(10**6)
    if stratify:
        if labels is None or labels.ndim != 1:
            given = "a count" if labels is None else f"targets of shape {labels.shape}"
            raise InputError(f"split: stratify needs one label a row, (n,), and got {given}; give the labels")
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


def split_dataset(
    data: Dataset, *, fraction: float = 0.2, seed: int, task: str = "classification"
) -> tuple[Array, Array]:
    """Training and validation rows of a data set: the ones its source sets apart, else drawn by `split`.

    Classification divides each class by itself, regression all rows at once.

    Raises:
        DataError: the data set has no targets.
    """
    if data.y is None:
        raise DataError(f"{data.name}: there are no targets y; training needs them")
    if data.validation is not None:
        training = np.ones(len(data), dtype=bool)
        training[data.validation] = False
        return np.flatnonzero(training).astype(np.int64), np.unique(data.validation)
    if task == "classification":
        labels = data.y[:, 0] if data.y.ndim == 2 and data.y.shape[1] == 1 else data.y
        return split(labels, fraction=fraction, seed=seed, stratify=True)
    return split(len(data), fraction=fraction, seed=seed, stratify=False)


def _shares(sizes: Array, share: Fraction) -> list[int]:
    """How many of each class validate: `share` of each by the largest remainder, one of each kept back."""
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
