"""Mean and squared deviations of each feature, in float64 and in chunks: the data may be larger than memory."""

from typing import NamedTuple

import numpy as np

from .._typing import Array
from ..errors import DataError
from .checks import chunks, width_of

LONG = 2.0**40  # whole numbers from here on are 1e-4 and more from a mean that float64 rounds


class Moments(NamedTuple):
    """The number of rows; mean and squares (sums of squared deviations from it), (features,) float64 each.

    `low` is what the mean in float64 lacks, of numbers with more digits than float64 has; else None.
    """

    rows: int
    mean: Array
    squares: Array
    low: Array | None = None


def is_long(x: Array) -> bool:
    """Whether the dtype of x holds numbers with more digits than float64 has."""
    return x.dtype.kind in "iuf" and x.dtype.itemsize >= 8 and x.dtype != np.float64


def split(x: Array) -> tuple[Array, Array]:
    """Return float64 arrays (high, low) whose sum is x, whole numbers of 64 bits or long floats, without rounding."""
    if x.dtype.kind == "f":
        high = x.astype(np.float64)
        return high, (x - high).astype(np.float64)
    last = x & x.dtype.type(2047)
    return (x - last).astype(np.float64), last.astype(np.float64)


def minus(x: Array, mean: Array, low: Array | None) -> Array:
    """Return x - (mean + low) in float64; None for a mean that float64 holds."""
    if low is None:
        return np.subtract(x, mean, dtype=np.float64, casting="unsafe")
    high, rest = split(x) if is_long(x) else (x.astype(np.float64), 0.0)
    return (high - mean) + (rest - low)


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
    if is_long(x) and (x.dtype.kind == "f" or largest(x, indices) > LONG):
        return _long_moments(x, indices, width)
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


def _long_moments(x: Array, indices: Array, width: int) -> Moments:
    """Return the moments of numbers with more digits than float64 has, from their differences to the first row."""
    high, low = split(np.asarray(x[indices[:1]]).reshape(width))
    total = Moments(0, np.zeros(width), np.zeros(width))
    for part in chunks(len(indices), width):
        rows = minus(np.asarray(x[indices[part]]).reshape(-1, width), high, low)
        shift = rows.mean(axis=0)
        rows -= shift
        total = _merged(total, Moments(len(rows), shift, np.einsum("ij,ij->j", rows, rows)))
    mean = high + (low + total.mean)
    return Moments(total.rows, mean, total.squares, ((high - mean) + low) + total.mean)


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
