"""The scalars of the steps to come, such as learning rates, where a recorded step reads them."""

from collections.abc import Sequence

import numpy as np

from .._typing import Array
from ..arrays.backend import Backend
from ..errors import InputError
from ..ops.update import ROW, STEPS
from ..optim.optimizers import Optimizer

LEAST = 64  # rows


class Table:
    """Rows of scalars, one for each step, on the backend; `counters` says which row is next.

    After the last row its rate stays. `generation` changes when the array is replaced by a larger one: plans that read
    the older one are out of date.
    """

    def __init__(self, backend: Backend, dtype: str, counters: Array) -> None:
        self.backend, self.dtype, self.counters = backend, dtype, counters
        self.array: Array = None
        self.rates: list[float] = []
        self.used = self.generation = 0  # rows that steps have read, as the host counts

    def schedule(self, rates: Sequence[float], optimizer: Optimizer) -> None:
        """Set the learning rates of the next successful steps. Reads the step count from the device."""
        t = int(self.backend.to_numpy(self.counters)[STEPS])
        rows = np.asarray([optimizer.row(rate, t + 1 + i) for i, rate in enumerate(rates)], dtype=np.float64)
        if not (rows.ndim == 2 and np.all(np.isfinite(rows)) and np.all(rows[:, 0] >= 0)):
            raise InputError(
                f"Step: learning rates {list(rates)[:4]!r} ... must be finite, from 0 up, and at least one"
            )
        self._fill(rows)
        self.counters[ROW] = 0
        self.rates, self.used = list(rates), 0

    def left(self, optimizer: Optimizer) -> int:
        """How many more steps there are rows for, at least one: where there is none, the table grows at the last rate,
        for Adam's other scalars change also where the rate stays.
        """
        if self.used >= len(self.rates):
            row = int(self.backend.to_numpy(self.counters)[ROW])
            rest = self.rates[min(row, len(self.rates) - 1) :]
            self.schedule([*rest, *[rest[-1]] * max(LEAST, len(self.rates))], optimizer)
        return len(self.rates) - self.used

    def renew(self) -> None:
        """Make the rows again at the next step: the step count has changed."""
        self.used = len(self.rates)

    def _fill(self, rows: np.ndarray) -> None:
        if self.array is None or self.array.shape[0] < len(rows) or self.array.shape[1] != rows.shape[1]:
            capacity = max(LEAST, 1 << (len(rows) - 1).bit_length())  # so that a few more rows find room
            self.array = self.backend.asarray(np.zeros((capacity, rows.shape[1])), self.dtype, copy=True)
            self.generation += 1
        full = np.concatenate([rows, np.repeat(rows[-1:], self.array.shape[0] - len(rows), axis=0)])
        self.array[...] = self.backend.asarray(full, self.dtype)
