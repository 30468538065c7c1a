"""What a step reads that is new each time, in memory that stays: a replay finds it where the recorded step did."""

from typing import Any, NamedTuple

import numpy as np

from .._typing import Array
from ..backend import Backend


class Micro(NamedTuple):
    """A micro-batch on the backend."""

    x: Array
    target: Array
    weights: Array | None
    samples: Array


class Inputs:
    """Buffers for the micro-batches of a step and for its normaliser; a smaller batch fills the beginning of one.

    `generation` changes when a buffer was replaced by a larger one: plans that read the older one are out of date.
    """

    def __init__(self, backend: Backend, dtype: str) -> None:
        self.backend, self.dtype, self.generation = backend, dtype, 0
        self.normaliser = backend.xp.zeros((1,), dtype=backend.dtype(dtype), device=backend.device)
        self._held: dict[tuple[int, str], Array] = {}

    def put(self, i: int, x: Array, target: np.ndarray, weights: np.ndarray | None, samples: np.ndarray) -> Micro:
        """Micro-batch i, copied in."""
        own = "int64" if target.dtype.kind == "i" else self.dtype
        return Micro(
            self._copy(i, "x", x, self.dtype),
            self._copy(i, "target", target, own),
            None if weights is None else self._copy(i, "weights", weights, self.dtype),
            self._copy(i, "samples", samples, "int64"),
        )

    def weigh(self, total: float) -> Array:
        """The normaliser, set."""
        self.normaliser[...] = total
        return self.normaliser

    def arrays(self) -> list[Array]:
        """All memory held here."""
        return [self.normaliser, *self._held.values()]

    def _copy(self, i: int, field: str, value: Array, dtype: str) -> Array:
        rows, kind = int(value.shape[0]), self.backend.dtype(dtype)
        held = self._held.get((i, field))
        if held is None or held.shape[0] < rows or held.shape[1:] != value.shape[1:] or held.dtype != kind:
            shape = tuple(int(n) for n in value.shape)
            held = self.backend.xp.empty(shape, dtype=kind, device=self.backend.device)
            self._held[i, field] = held
            self.generation += 1
        view = held[:rows, ...]
        view[...] = self.backend.asarray(value, dtype)
        return view


class Table:
    """The scalars of the steps to come, a row a step, in memory that stays; the last row fills the rest of it."""

    def __init__(self, backend: Backend, dtype: str) -> None:
        self.backend, self.dtype, self.array, self.generation = backend, dtype, None, 0

    array: Any

    def fill(self, rows: np.ndarray) -> None:
        """Put the rows in; more than fit before take new memory."""
        if self.array is None or self.array.shape[0] < len(rows) or self.array.shape[1] != rows.shape[1]:
            capacity = max(64, 1 << (len(rows) - 1).bit_length())  # so that a few more rows find room
            self.array = self.backend.asarray(np.zeros((capacity, rows.shape[1])), self.dtype, copy=True)
            self.generation += 1
        full = np.concatenate([rows, np.repeat(rows[-1:], self.array.shape[0] - len(rows), axis=0)])
        self.array[...] = self.backend.asarray(full, self.dtype)
