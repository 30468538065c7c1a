"""Sums of float64 numbers without rounding, as integer multiples of 2**-1126: the same in any order and grouping."""

from fractions import Fraction
from typing import Any

import numpy as np

_LOWEST = 1126  # the last bit of a 53-bit significand at the smallest exponent of frexp, -1073
_HALF = 27


class ExactSum:
    """A running sum that keeps every bit; `fraction()` is its exact value."""

    def __init__(self) -> None:
        self._units = 0

    def add(self, values: Any) -> None:
        """Add all elements of an array (fewer than 2**36), each finite."""
        significand, exponent = np.frexp(np.ravel(np.asarray(values, np.float64)))
        whole = np.ldexp(significand, 53).astype(np.int64)
        exponents, place = np.unique(exponent, return_inverse=True)
        # Halves of the significands: int64 holds the sum of 2**36 of them, where it would hold that of 1,024 whole
        # ones.
        high, low = (np.zeros(len(exponents), np.int64) for _ in range(2))
        np.add.at(high, place, whole >> _HALF)
        np.add.at(low, place, whole & ((1 << _HALF) - 1))
        for e, h, part in zip(exponents.tolist(), high.tolist(), low.tolist(), strict=True):
            self._units += ((h << _HALF) + part) << (e - 53 + _LOWEST)

    def merge(self, other: "ExactSum") -> None:
        """Add another sum."""
        self._units += other._units

    def fraction(self) -> Fraction:
        """Return the sum, unrounded."""
        return Fraction(self._units, 1 << _LOWEST)


def rounded(value: Fraction) -> float:
    """Return the float64 nearest to a fraction; infinity beyond the largest."""
    try:
        return float(value)
    except OverflowError:
        return float("inf") if value > 0 else float("-inf")


def product(a: Any, b: Any) -> tuple[Any, Any]:
    """Return (high, low) with high + low = a * b exactly, elementwise in float64, if nothing leaves 1e-140 ... 1e140.

    Source: Dekker, "A floating-point technique for extending the available precision", Numer. Math. 18, 1971.
    """
    high = a * b
    (a1, a2), (b1, b2) = _split(a), _split(b)
    return high, ((a1 * b1 - high) + a1 * b2 + a2 * b1) + a2 * b2


def _split(a: Any) -> tuple[Any, Any]:
    """Split a number into two of at most 26 bits each (Veltkamp)."""
    scaled = a * float(2**27 + 1)
    high = scaled - (scaled - a)
    return high, a - high
