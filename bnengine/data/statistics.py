"""Mean and squared deviations of each feature, in float64 and in chunks: the data may be larger than memory."""

from typing import NamedTuple

import numpy as np

from .._typing import Array
from ..errors import DataError
from .checks import chunks, width_of


class Moments(NamedTuple):
    """The number of rows; mean and squares (sums of squared deviations from it), (features,) float64 each."""

    rows: int
    mean: Array
    squares: Array


def feature_moments(x: Array, indices: Array, name: str) -> Moments:
    """Return mean and squared deviations of each feature over the rows `indices` of x (n, ...), features flattened.

    Each chunk takes differences from the first row, and then from its mean; chunks merge by Chan's formula
    `M2 = M2_a + M2_b + (mean_b - mean_a)^2 n_a n_b / (n_a + n_b)`. A constant feature has exactly that mean, and
    squares 0.

    Source: Chan, Golub, LeVeque, "Algorithms for computing the sample variance", The American Statistician 37, 1983.

    Raises:
        DataError: values so large that their squares overflow float64.
    """
    width = width_of(x)
    pivot = np.asarray(x[indices[:1]]).reshape(width).astype(np.float64)
    total = Moments(0, pivot, np.zeros(width))
    with np.errstate(over="ignore", invalid="ignore"):
        for part in chunks(len(indices), width):
            rows = np.asarray(x[indices[part]]).reshape(-1, width).astype(np.float64)
            rows -= pivot
            shift = rows.mean(axis=0)
            rows -= shift
            total = _merged(total, Moments(len(rows), pivot + shift, np.einsum("ij,ij->j", rows, rows)))
    wrong = ~np.isfinite(total.squares)
    if wrong.any():
        feature = int(np.argmax(wrong))
        place = tuple(int(i) for i in np.unravel_index(feature, x.shape[1:]))
        raise DataError(
            f"{name}: x, feature {place[0] if len(place) == 1 else place}: the values are too large for a "
            f"variance in float64 (above about 1e154). Use other units."
        )
    return total


def _merged(a: Moments, b: Moments) -> Moments:
    count = a.rows + b.rows
    delta = b.mean - a.mean
    return Moments(
        count, a.mean + delta * (b.rows / count), a.squares + b.squares + delta**2 * (a.rows * b.rows / count)
    )


def largest(x: Array, indices: Array) -> float:
    """Return the largest magnitude over the rows `indices` of x (n, ...)."""
    magnitude = 0.0
    for part in chunks(len(indices), width_of(x)):
        rows = np.asarray(x[indices[part]])
        magnitude = max(magnitude, abs(float(rows.max())), abs(float(rows.min())))
    return magnitude
