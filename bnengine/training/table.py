"""The schedule table: the scalars of the next steps, such as learning rates, which a recorded step reads."""

from collections.abc import Sequence

import numpy as np

from .._typing import Array
from ..arrays.backend import Backend
from ..errors import InputError
from ..ops.update import ROW, STEPS
from ..optim.optimizers import Optimizer

MIN_ROWS = 64


class Table:
    """Rows of scalars, one for each step, on the backend; `counters` holds the index of the next row.

    After the last row its learning rate stays.

    Attributes:
        generation: changes when a larger array replaces `array`, which invalidates plans.
        used: rows that steps have read, as counted on the host.
    """

    def __init__(self, backend: Backend, dtype: str, counters: Array) -> None:
        self.backend, self.dtype, self.counters = backend, dtype, counters
        self.array: Array = None
        self.rates: list[float] = []
        self.used = self.generation = 0

    def schedule(self, rates: Sequence[float], optimizer: Optimizer) -> None:
        """Set the learning rates of the next successful steps. It reads the step count from the device."""
        t = int(self.backend.to_numpy(self.counters)[STEPS])
        rows = np.asarray([optimizer.row(rate, t + 1 + i) for i, rate in enumerate(rates)], dtype=np.float64)
        if not (rows.ndim == 2 and np.all(np.isfinite(rows)) and np.all(rows[:, 0] >= 0)):
            raise InputError(
                f"Step: learning rates must be at least one finite number of at least 0, got {list(rates)[:4]!r}."
            )
        self._fill(rows)
        self.counters[ROW] = 0
        self.rates, self.used = list(rates), 0

    def left(self, optimizer: Optimizer) -> int:
        """Return for how many more steps there are rows, at least one.

        If there is none, it adds rows with the last rate: Adam's other scalars change even if the rate does not.
        """
        if self.used >= len(self.rates):
            row = int(self.backend.to_numpy(self.counters)[ROW])
            rest = self.rates[min(row, len(self.rates) - 1) :]
            self.schedule([*rest, *[rest[-1]] * max(MIN_ROWS, len(self.rates))], optimizer)
        return len(self.rates) - self.used

    def renew(self) -> None:
        """Compute the rows again at the next step: the step count has changed."""
        self.used = len(self.rates)

    def _fill(self, rows: np.ndarray) -> None:
        if self.array is None or self.array.shape[0] < len(rows) or self.array.shape[1] != rows.shape[1]:
            capacity = max(MIN_ROWS, 1 << (len(rows) - 1).bit_length())  # with room for a few more rows
            self.array = self.backend.asarray(np.zeros((capacity, rows.shape[1])), self.dtype, copy=True)
            self.generation += 1
        full = np.concatenate([rows, np.repeat(rows[-1:], self.array.shape[0] - len(rows), axis=0)])
        self.array[...] = self.backend.asarray(full, self.dtype)
