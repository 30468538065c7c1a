"""Rows: the data of an epoch's steps, on the host or on the device. The one interface between data and a step."""

from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from functools import partial
from itertools import islice
from typing import NamedTuple, Protocol

import numpy as np

from .._typing import Array
from ..data import Batch, Source
from ..runtime.memory import Memory
from .inputs import Inputs, MicroBatch


class StepRows(NamedTuple):
    """The rows of one step, on the backend.

    Attributes:
        micros: the micro-batches.
        divisor: (1,), what the loss is divided by.
        cursor: where the next step's rows begin, moved by the step's last launch; None if the host loads rows.
    """

    micros: list[MicroBatch]
    divisor: Array
    cursor: Array | None = None


class Rows(Protocol):
    """The rows of an epoch, one step after the other: `HostRows` or `Resident`."""

    @property
    def sizes(self) -> tuple[int, ...]:
        """The number of rows of each micro-batch of the next step; () at the end."""

    @property
    def steps_alike(self) -> int:
        """The number of steps of equal sizes from the next one on; 0 at the end. One native call may run them."""

    def load(self) -> Hashable:
        """Copy the next step's rows into the buffers that a recorded step reads; return what its plan depends on."""

    def get(self, memory: Memory) -> StepRows:
        """Return the rows of the next step; launches for them in `memory` are part of the step."""

    def advance(self, steps: int) -> None:
        """Move on by `steps` steps."""

    def batches(self, ahead: int = 0) -> list[Batch]:
        """Return the next step's batches on the host; with `ahead` -1 those of the step before."""

    def arrays(self) -> list[Array]:
        """Return the memory that a replay reads, without the buffers of `Inputs`."""


class HostStep(NamedTuple):
    """One step on the host: the rows of its micro-batches, and a function that returns them."""

    sizes: tuple[int, ...]
    batches: Callable[[], list[Batch]]


class HostRows:
    """`Rows` that are copied to the backend one step at a time, on a GPU while it computes the step before."""

    def __init__(self, inputs: Inputs, steps: Iterable[HostStep]) -> None:
        self.inputs, self._steps = inputs, iter(steps)
        self._next: HostStep | None = None
        self._last: HostStep | None = None
        self._loaded: StepRows | None = None

    def __repr__(self) -> str:
        return "rows on the host" if self.steps_alike else "a finished epoch"

    @classmethod
    def of(cls, inputs: Inputs, batches: Sequence[Batch]) -> "HostRows":
        """Return the rows of a single step."""
        sizes = tuple(n for batch in batches for n in np.shape(batch.x)[:1])
        return cls(inputs, [HostStep(sizes, lambda: list(batches))])

    @classmethod
    def over(cls, inputs: Inputs, source: Source, order: np.ndarray, groups: Sequence[Sequence[slice]]) -> "HostRows":
        """Return the rows of a source in an order, one step for each group of slices of it."""
        return cls(inputs, (HostStep(sizes_of(parts), partial(_take, source, order, parts)) for parts in groups))

    @classmethod
    def from_batches(cls, inputs: Inputs, batches: Iterator[Batch], accumulate: int) -> "HostRows":
        """Return the rows of an iterator of batches, `accumulate` of them for each step."""
        groups = iter(lambda: list(islice(batches, accumulate)), [])
        return cls(inputs, (HostStep(tuple(len(b.x) for b in group), partial(list, group)) for group in groups))

    @property
    def sizes(self) -> tuple[int, ...]:
        step = self._step()
        return () if step is None else step.sizes

    @property
    def steps_alike(self) -> int:
        return 0 if self._step() is None else 1

    def load(self) -> Hashable:
        batches = self.batches()
        divisor = self.inputs.weigh(batches)
        with np.errstate(all="ignore"):  # the step checks what is not finite
            micros = [self.inputs.put(i, batch) for i, batch in enumerate(batches)]
        self._loaded = StepRows(micros, divisor)
        return tuple((m.x.shape, m.target.shape, str(m.target.dtype), m.weights is None) for m in micros)

    def get(self, memory: Memory) -> StepRows:  # noqa: ARG002
        assert self._loaded is not None
        return self._loaded

    def advance(self, steps: int) -> None:  # noqa: ARG002 -- always 1
        self._last, self._next = self._next, None

    def batches(self, ahead: int = 0) -> list[Batch]:
        step = self._last if ahead < 0 else self._step()
        assert step is not None
        return step.batches()

    def arrays(self) -> list[Array]:
        return []

    def _step(self) -> HostStep | None:
        if self._next is None:
            self._next = next(self._steps, None)
        return self._next


def sizes_of(parts: Sequence[slice]) -> tuple[int, ...]:
    """Return the number of rows of each micro-batch of a step."""
    return tuple(part.stop - part.start for part in parts)


def _take(source: Source, order: np.ndarray, parts: Sequence[slice]) -> list[Batch]:
    return [source.take(order[part]) for part in parts]
