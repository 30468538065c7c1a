"""Inputs without NumPy's random numbers or functions: the same bits on every machine and for every version."""

import hashlib
from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]


def words(label: str, count: int) -> Array:
    """Integers from 0 to 2**32 - 1, given by a label."""
    return np.frombuffer(hashlib.shake_128(label.encode()).digest(4 * count), "<u4").astype(np.int64)


def draw(label: str, *shape: int, dtype: Any = "float32") -> Array:
    """Numbers from -6 to 6 with mean 0 and variance 4, bell-shaped: the sum of three uniform ones."""
    n = int(np.prod(shape))
    parts = words(label, 3 * n).reshape(3, n).sum(axis=0)
    return ((parts * 2.0**-32 - 1.5) * 4).reshape(shape).astype(dtype)


def share(label: str, *shape: int, dtype: Any = "float32") -> Array:
    """Numbers from 0 to 1."""
    return (words(label, int(np.prod(shape))) * 2.0**-32).reshape(shape).astype(dtype)


def codes(label: str, count: int, *shape: int) -> Array:
    """Classes from 0 to `count` - 1."""
    return (words(label, int(np.prod(shape))) % count).reshape(shape)


def probabilities(label: str, *shape: int, dtype: Any = "float32") -> Array:
    """Rows that sum to 1."""
    parts = share(label, *shape, dtype="float64") + 0.01
    return (parts / parts.sum(axis=-1, keepdims=True)).astype(dtype)
