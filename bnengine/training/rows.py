"""The rows of the steps of an epoch, wherever they lie: one interface between data and a training step."""

from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from functools import partial
from itertools import islice
from typing import NamedTuple, Protocol

import numpy as np

from .._typing import Array
from ..data import Batch, Source
from ..runtime.memory import Memory
from .inputs import Inputs, Micro


class Taken(NamedTuple):
    """The rows of a step on the backend, what its loss is divided by, and the cursor that the step moves, if any."""

    micros: list[Micro]
    divisor: Array
    cursor: Array | None = None


class Rows(Protocol):
    """The rows of an epoch's steps, one step after the other: `HostRows` or `Resident`."""

    @property
    def sizes(self) -> tuple[int, ...]:
        """The rows of each micro-batch of the next step; () at the end."""

    @property
    def alike(self) -> int:
        """How many steps one native call may run, the next one and those of its sizes that follow; 0 at the end."""

    def bring(self) -> Hashable:
        """Put the rows of the next step where a recorded step reads them, and return what its plan depends on."""

    def take(self, memory: Memory) -> Taken:
        """The rows of the next step. What is launched for them in `memory` is part of the step."""

    def advance(self, steps: int) -> None:
        """Go on: so many steps are done."""

    def batches(self, ahead: int = 0) -> list[Batch]:
        """The next step's data on the host; `ahead` -1: those of the step before."""

    def arrays(self) -> list[Array]:
        """Memory that a replay reads, other than buffers of `Inputs`."""


class Lot(NamedTuple):
    """The rows of one step on the host: sizes of its micro-batches, and a function that makes them."""

    sizes: tuple[int, ...]
    batches: Callable[[], list[Batch]]


class HostRows:
    """`Rows` that are copied to the backend one step at a time; on a GPU while it computes the step before."""

    def __init__(self, inputs: Inputs, lots: Iterable[Lot]) -> None:
        self.inputs, self._lots = inputs, iter(lots)
        self._next: Lot | None = None
        self._last: Lot | None = None
        self._taken: Taken | None = None

    def __repr__(self) -> str:
        return "rows on the host" if self.alike else "an epoch that is done"

    @classmethod
    def of(cls, inputs: Inputs, batches: Sequence[Batch]) -> "HostRows":
        """The micro-batches of a single step."""
        sizes = tuple(n for batch in batches for n in np.shape(batch.x)[:1])
        return cls(inputs, [Lot(sizes, lambda: list(batches))])

    @classmethod
    def over(cls, inputs: Inputs, source: Source, order: np.ndarray, groups: Sequence[Sequence[slice]]) -> "HostRows":
        """Rows of a source in this order, in these groups of micro-batches."""
        return cls(inputs, (Lot(sizes_of(parts), partial(_take, source, order, parts)) for parts in groups))

    @classmethod
    def from_batches(cls, inputs: Inputs, batches: Iterator[Batch], accumulate: int) -> "HostRows":
        """So many batches a step of an iterator."""
        taken = iter(lambda: list(islice(batches, accumulate)), [])
        return cls(inputs, (Lot(tuple(len(b.x) for b in some), partial(list, some)) for some in taken))

    @property
    def sizes(self) -> tuple[int, ...]:
        lot = self._lot()
        return () if lot is None else lot.sizes

    @property
    def alike(self) -> int:
        return 0 if self._lot() is None else 1

    def bring(self) -> Hashable:
        batches = self.batches()
        divisor = self.inputs.weigh(batches)
        with np.errstate(all="ignore"):  # what is not finite is the step's to check
            micros = [self.inputs.put(i, batch) for i, batch in enumerate(batches)]
        self._taken = Taken(micros, divisor)
        return tuple((m.x.shape, m.target.shape, str(m.target.dtype), m.weights is None) for m in micros)

    def take(self, memory: Memory) -> Taken:  # noqa: ARG002
        assert self._taken is not None
        return self._taken

    def advance(self, steps: int) -> None:  # noqa: ARG002 -- always one
        self._last, self._next = self._next, None

    def batches(self, ahead: int = 0) -> list[Batch]:
        lot = self._last if ahead < 0 else self._lot()
        assert lot is not None
        return lot.batches()

    def arrays(self) -> list[Array]:
        return []

    def _lot(self) -> Lot | None:
        if self._next is None:
            self._next = next(self._lots, None)
        return self._next


def sizes_of(parts: Sequence[slice]) -> tuple[int, ...]:
    """The rows of each micro-batch of a group."""
    return tuple(part.stop - part.start for part in parts)


def _take(source: Source, order: np.ndarray, parts: Sequence[slice]) -> list[Batch]:
    return [source.take(order[part]) for part in parts]
