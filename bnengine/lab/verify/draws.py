"""Random inputs of the certificate: the generator methods that examples of ops use, on bnengine's own streams."""

from functools import cache
from math import prod
from typing import Any

import numpy as np

from ..._typing import Array
from ...arrays.random import Stream

Shape = int | tuple[int, ...]


class Draws:
    """The methods of a NumPy generator that examples use, with the same bits on every machine."""

    def __init__(self, seed: int, *purpose: str | int) -> None:
        self._stream = Stream(seed, "verify", *purpose)

    def standard_normal(self, shape: Shape) -> Array:
        """Normal numbers of mean 0 and standard deviation 1."""
        return self._stream.normal(shape)

    def random(self, shape: Shape) -> Array:
        """Uniform numbers in (0, 1)."""
        return self._stream.uniform(shape)

    def integers(self, low: int, high: int, shape: Shape) -> Array:
        """Integers from `low` to `high` - 1."""
        return self._stream.integers(low, high, shape)

    def permutation(self, n: int) -> Array:
        """The numbers from 0 to n - 1 in a random order."""
        return self._stream.permutation(n)

    def dirichlet(self, alpha: Array, n: int) -> Array:
        """(n, k) uniform points of the simplex: exponential numbers over their sum. Only for alpha of ones."""
        e = -np.log(self._stream.uniform((n, len(alpha))))
        return e / e.sum(axis=1, keepdims=True)


@cache
def signs(seed: int, number: int) -> "Signs":
    """The signs of one number, drawn once."""
    return Signs(seed, number)


class Signs:
    """Random signs, drawn once: the same for the same (place, shape)."""

    LENGTH = 1 << 16

    def __init__(self, seed: int, number: int) -> None:
        drawn = Stream(seed, "verify signs", number).integers(0, 2, self.LENGTH)
        self._signs = np.asarray(drawn, np.float64) * 2 - 1

    def at(self, place: int, shape: tuple[int, ...]) -> Any:
        """The array of -1 and 1 of `place`."""
        start = (place * 7919) % self.LENGTH  # a prime, which spreads successive places
        size = prod(shape)
        return np.resize(np.roll(self._signs, -start) if size + start > self.LENGTH else self._signs[start:], shape)
