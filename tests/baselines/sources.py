"""Data to train on: every way in which rows and targets reach a step."""

import tempfile
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np

import bnengine as bn
from bnengine.data import Batch

from .draws import Array, codes, draw, probabilities, share

ROWS, INPUTS, CLASSES = 61, 6, 3


def inputs(dtype: str, seed: str = "", rows: int = ROWS) -> tuple[Array, Array]:
    """Classes around centers of their own."""
    y = codes(f"y{seed}", CLASSES, rows)
    return (draw(f"x{seed}", rows, INPUTS) + 2 * draw("centers", CLASSES, INPUTS)[y]).astype(dtype), y


def classes(dtype: str) -> tuple[Array, ...]:
    """Integer targets."""
    return inputs(dtype)


def weighted(dtype: str) -> tuple[Array, ...]:
    """Integer targets and weights, some of them 0."""
    weights = share("w", ROWS, dtype=dtype)
    return (*inputs(dtype), np.where(weights < 0.2, 0, weights).astype(dtype))


def likely(dtype: str) -> tuple[Array, ...]:
    """Probabilities as targets."""
    return inputs(dtype)[0], probabilities("t", ROWS, CLASSES, dtype=dtype)


def numbers(dtype: str) -> tuple[Array, ...]:
    """Real targets, which also are between 0 and 1."""
    return inputs(dtype)[0], share("t", ROWS, CLASSES, dtype=dtype)


def numbers_weighted(dtype: str) -> tuple[Array, ...]:
    """Real targets with weights."""
    return (*numbers(dtype), share("w", ROWS, dtype=dtype))


class Rows:
    """A source that checks nothing: NaN and infinity reach the step."""

    def __init__(self, x: Array, y: Array) -> None:
        self.x, self.y, self.rows = x, y, len(x)

    def take(self, positions: Array) -> Batch:
        """The rows at these positions."""
        return Batch(self.x[positions], self.y[positions], None, positions)


def spoiled(dtype: str) -> Rows:
    """A row with NaN and one with infinity: two steps of an epoch are skipped."""
    x, y = inputs(dtype)
    x[3, 1], x[40, 2] = np.nan, np.inf
    return Rows(x, y)


def images(dtype: str) -> Rows:
    """Pictures of 3 x 2 with a class for every pixel."""
    return Rows(draw("image", 40, 3, 2, INPUTS, dtype=dtype), codes("pixel", CLASSES, 40, 3, 2))


def few(dtype: str) -> tuple[Array, ...]:
    """Thirteen rows."""
    return inputs(dtype, rows=13)


def far(dtype: str) -> tuple[Array, ...]:
    """Inputs whose mean is 10,000 standard deviations from 0."""
    x, y = inputs(dtype)
    return (x + np.asarray(10_000, dtype)).astype(dtype), y


def batches(dtype: str) -> Callable[[], Iterator[tuple[Array, Array]]]:
    """Batches from a function, in their own order."""
    x, y = inputs(dtype)
    return lambda: ((x[a : a + 16], y[a : a + 16]) for a in range(0, ROWS, 16))


def raw(kind: str, scaling: str, task: str = "classification") -> Callable[[str], bn.ArraySource]:
    """Raw numbers of a dtype with a preprocessing, in the order of some indices."""

    def source(dtype: str) -> bn.ArraySource:
        x = draw("raw", ROWS, INPUTS, dtype="float64") * 20 + 60
        x = x.astype(kind)
        y = codes("y", CLASSES, ROWS) if task == "classification" else draw("t", ROWS, CLASSES, dtype="float64")
        indices = np.arange(ROWS)[::-1][:50]
        data = bn.data.Dataset(x, y)
        preprocessing = bn.Preprocessing.fit(data, indices, scaling=scaling, task=task)
        return bn.ArraySource(x, y, preprocessing=preprocessing, indices=indices, dtype=dtype)

    return source


def many(dtype: str) -> tuple[Array, Array]:
    """Rows enough for several blocks of a sum."""
    return inputs(dtype, " many", 1500)


def one_output(dtype: str) -> tuple[Array, ...]:
    """A target for each row, without an axis for it."""
    return inputs(dtype)[0], codes("t", 2, ROWS).astype(dtype)


def other_dtypes(dtype: str) -> tuple[Array, ...]:
    """Inputs and weights in the other floating dtype, classes in 32 bits."""
    x, y, weights = weighted("float32" if dtype == "float64" else "float64")
    return x, y.astype(np.int32), weights


def ragged(dtype: str) -> Callable[[], Iterator[tuple[Array, Array]]]:
    """Batches of many sizes, some of which come again."""
    x, y = inputs(dtype)
    cuts = np.cumsum([0, 5, 16, 2, 5, 9, 16, 8])
    return lambda: ((x[a:b], y[a:b]) for a, b in pairwise(cuts))


def long(dtype: str) -> Callable[[], Iterator[tuple[Array, Array]]]:
    """More batches than the host plans ahead, their number unknown."""
    x, y = inputs(dtype, " long", 240)
    return lambda: ((x[a : a + 2], y[a : a + 2]) for a in range(0, 240, 2))


def mapped(dtype: str) -> bn.ArraySource:
    """Pictures of bytes in a file that is mapped into memory."""
    with tempfile.TemporaryDirectory() as folder:  # the mapping outlives the name
        path = Path(folder) / "x.npy"
        np.save(path, codes("pictures", 256, 50, 3, 2).astype(np.uint8))
        x = np.load(path, mmap_mode="r")
    data = bn.data.Dataset(x, codes("y", CLASSES, 50))
    return bn.ArraySource(data.x, data.y, preprocessing=bn.Preprocessing.fit(data), dtype=dtype)
