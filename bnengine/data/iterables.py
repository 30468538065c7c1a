"""Batches from any Python iterable: a list, a generator function, another library's loader."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from .._typing import Array, DType
from ..errors import DataError, InputError
from .batches import Batch, check_ready, check_weights, narrowed, ready_targets
from .checks import as_numpy, check_finite, check_inputs, check_targets, row_and_feature, text_labels
from .preprocessing import Preprocessing


class IterableSource:
    """Batches (x, y) or (x, y, weights) in the order of an iterable; each is checked when it arrives.

    `samples` are the positions within the epoch, so they mean the same in every epoch only if the order does.

    Args:
        factory: an iterable that each epoch iterates over, or a callable without arguments that returns one.
        preprocessing: turns raw rows into the network's numbers.
        dtype: of the network, "float32" or "float64".
        name: what messages call the data.

    Raises:
        InputError: `factory` is neither iterable nor callable.
    """

    rows: int | None = None

    def __init__(
        self,
        factory: Callable[[], Iterable[Any]] | Iterable[Any],
        preprocessing: Preprocessing | None = None,
        dtype: DType = "float32",
        name: str = "batches",
    ) -> None:
        if not callable(factory) and not isinstance(factory, Iterable):
            raise InputError(
                f"IterableSource: the argument must be an iterable or a callable that returns one, got {factory!r}."
            )
        self.name = name
        self.dtype = np.dtype(dtype)
        self.preprocessing = preprocessing
        self._factory = factory
        self._exhausted: Iterator[Any] | None = None

    def take(self, positions: Array) -> Batch:
        """Raise: an iterable has no positions.

        Raises:
            InputError: always.
        """
        raise InputError(
            f"{self.name}: rows {np.asarray(positions)[:3].tolist()} ... were requested by position, and an iterable "
            f"yields batches in its own order only. Use epoch(), or arrays for shuffling."
        )

    def epoch(self, *, skip: int = 0) -> Iterator[Batch]:
        """Yield the batches of one epoch, without the first `skip`: so a resumed run continues inside an epoch.

        Raises:
            DataError: an earlier epoch exhausted the iterator, it has no batch, or a batch has a wrong shape, dtype or
                length, or NaN; the message names the number of the batch.
        """
        iterator = self._iterator()
        first, shape, count = 0, None, 0
        for count, item in enumerate(iterator, start=1):
            place = f"{self.name}: batch {count - 1}"
            x, y, weights = _unpacked(item, place)
            if shape is not None and x.shape[1:] != shape:
                raise DataError(f"{place}: samples must have the shape of the first batch, {shape}, got {x.shape[1:]}.")
            shape = x.shape[1:]
            samples = np.arange(first, first + len(x), dtype=np.int64)
            first += len(x)
            if count > skip:
                yield self._batch(x, y, weights, samples, place)
        if count == 0:
            raise DataError(
                f"{self.name}: the iterable gave no batch. A generator can be iterated over only once: {_CURE}."
            )

    def _iterator(self) -> Iterator[Any]:
        if callable(self._factory):
            batches = self._factory()
            if not isinstance(batches, Iterable):
                raise DataError(f"{self.name}: the callable must return an iterable, got {batches!r}.")
        else:
            batches = self._factory
        iterator = iter(batches)
        if iterator is batches and iterator is self._exhausted:
            raise DataError(
                f"{self.name}: the epoch before exhausted the {type(iterator).__name__}, which has no more batches: "
                f"{_CURE}."
            )
        self._exhausted = iterator
        return iterator

    def _batch(self, x: Array, y: Array, weights: Array | None, samples: Array, place: str) -> Batch:
        rows = np.arange(len(x))
        if weights is not None:
            weights = check_weights(weights, len(x), place).astype(self.dtype)
        if self.preprocessing is not None:
            inputs = self.preprocessing.inputs(x, self.dtype, name=place, rows=rows)
            return Batch(inputs, self.preprocessing.targets(y, self.dtype, name=place, rows=rows), weights, samples)
        check_ready(x, y, place)
        return Batch(narrowed(x, self.dtype, place, rows), ready_targets(y, self.dtype), weights, samples)


_CURE = "pass a list, or a function that returns a new generator"


def _unpacked(item: Any, place: str) -> tuple[Array, Array, Array | None]:
    """Return x, y and weights of one item, checked."""
    if not isinstance(item, Sequence) or isinstance(item, str) or len(item) not in (2, 3):
        raise DataError(f"{place}: it must be (x, y) or (x, y, weights), got {type(item).__name__}.")
    x, y = as_numpy(item[0], place, "x"), text_labels(as_numpy(item[1], place, "y"), place)
    check_inputs(x, place)
    check_targets(y, len(x), place)
    check_finite(x, place, row_and_feature("x"))
    check_finite(y, place, row_and_feature("y"))
    return x, y, item[2] if len(item) == 3 else None
