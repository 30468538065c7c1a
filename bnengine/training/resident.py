"""Resident data: all training data in the memory of the backend, from which a launch of the step gathers its rows.

On NumPy arrays with native kernels the raw inputs stay in memory or in their mapped file: the launch casts and scales
the rows that it gathers.
"""

from collections.abc import Hashable, Mapping, Sequence
from typing import Literal

import numpy as np

from .. import ops
from .._typing import Array
from ..data import ArraySource, Batch, Source
from ..data.batches import Raw
from ..errors import InputError
from ..fused import backend_feature
from ..ops import Out, onto
from ..runtime.memory import Memory
from .inputs import Field, Inputs, Prepared, positive_total
from .rows import StepRows, sizes_of

ROWS_AT_ONCE = 8192  # copied together
SHARE = 0.5  # of a GPU's free memory that resident="auto" may use


class Resident:
    """`Rows` that a launch of the step gathers from inputs, targets, weights and sample indices in memory.

    Attributes:
        cursor: on the backend, moved by the step's last launch; the host counts along.
        raw: raw inputs, which were not copied; else None.
    """

    def __init__(self, source: ArraySource, inputs: Inputs) -> None:
        self.source, self.inputs, self.backend = source, inputs, inputs.backend
        inputs.generation += 1  # so that plans release earlier data
        self._serial = inputs.generation
        first = _first(source, inputs)
        self.dtypes, self.raw = inputs.dtypes(first), raw_of(source, inputs)
        self._targets = np.empty((source.rows, *first.target.shape[1:]), first.target.dtype)
        self._weights = None if first.weights is None else np.empty(source.rows, first.weights.dtype)
        self._uniform = self._weights is None and inputs.loss.constants(inputs.outputs) is None
        self._known: dict[int, float] = {}
        self._shapes = {name: tuple(map(int, a.shape[1:])) for name, a in first._asdict().items() if a is not None}
        copied = [name for name in self._shapes if name != "x" or self.raw is None]
        self.data = {name: self._empty(name) for name in copied}
        if self.raw is not None:
            source.check_inputs()
        for start in range(0, source.rows, ROWS_AT_ONCE):
            self._copy(start)
        if self.raw is not None:
            self.data["x"] = self.raw.x
        xp, device = self.backend.xp, self.backend.device
        self.order = xp.zeros((source.rows,), dtype=xp.int64, device=device)
        self.divisors = xp.zeros((source.rows,), dtype=inputs.divisor.dtype, device=device)
        self.cursor = xp.zeros((2,), dtype=xp.int64, device=device)
        self._positions, self._groups = np.empty(0, np.int64), list[Sequence[slice]]()
        self._sizes, self._runs, self._at = list[tuple[int, ...]](), list[int](), 0

    def __repr__(self) -> str:
        return f"an epoch of {len(self._sizes)} steps, {self._at} of them done"

    def _empty(self, name: str) -> Array:
        shape = self.source.rows, *self._shapes[name]
        return self.backend.xp.empty(shape, dtype=self.backend.dtype(self.dtypes[name]), device=self.backend.device)

    def _copy(self, start: int) -> None:
        stop = min(start + ROWS_AT_ONCE, self.source.rows)
        positions = np.arange(start, stop)
        if self.raw is None:
            batch = self.source.take(positions)
            weights, prepared = batch.weights, self.inputs.prepare(batch)
        else:
            y, weights, samples = self.source.targets(positions)
            target = self.inputs.loss.targets(y, self.inputs.outputs)
            prepared = Prepared(None, target, self.inputs.loss.weights(weights, target), samples)
        for name, array in self.data.items():
            array[start:stop, ...] = self.backend.asarray(getattr(prepared, name), self.dtypes[name])
        self._targets[start:stop] = prepared.target
        if self._weights is not None:
            self._weights[start:stop] = weights

    def start(self, order: np.ndarray, groups: Sequence[Sequence[slice]], done: int = 0) -> None:
        """Begin an epoch: its order, the slices of each step's micro-batches, and the steps that are `done` already."""
        totals = [positive_total(sum(self._part(order[part]) for part in parts)) for parts in groups]
        self.order[...] = self.backend.asarray(order, "int64")
        self.divisors[: len(totals)] = self.backend.asarray(np.asarray(totals), self.inputs.network.dtype)
        position = groups[done][0].start if done < len(groups) else self.source.rows
        self.cursor[...] = self.backend.asarray(np.asarray([position, done]), "int64")
        self._positions, self._groups, self._at = order, list(groups), done
        self._sizes, self._runs = [sizes_of(parts) for parts in groups], []
        for i, sizes in enumerate(reversed(self._sizes)):
            self._runs.append(self._runs[-1] + 1 if i and sizes == self._sizes[-i] else 1)
        self._runs.reverse()

    def _part(self, positions: np.ndarray) -> float:
        """Return what a micro-batch adds to the divisor; without weights it depends only on the number of rows."""
        if self._uniform and len(positions) in self._known:
            return self._known[len(positions)]
        weights = None if self._weights is None else self._weights[positions]
        total = self.inputs.loss.total(self._targets[positions], weights, self.inputs.outputs)
        self._known[len(positions)] = total
        return total

    @property
    def sizes(self) -> tuple[int, ...]:
        return self._sizes[self._at] if self._at < len(self._sizes) else ()

    @property
    def steps_alike(self) -> int:
        return self._runs[self._at] if self._at < len(self._runs) else 0

    def load(self) -> Hashable:
        return self._serial, self.sizes

    def get(self, memory: Memory) -> StepRows:
        inputs, offset, step = self.inputs, 0, StepRows([], self.inputs.divisor, self.cursor)
        for i, rows in enumerate(self.sizes):
            micro = inputs.views(i, self._fields(rows))
            self._gather(rows, offset, memory, onto(**micro._asdict(), divisor=inputs.divisor))
            step.micros.append(micro)
            offset += rows
        return step

    def advance(self, steps: int) -> None:
        self._at += steps

    def batches(self, ahead: int = 0) -> list[Batch]:
        return [self.source.take(self._positions[part]) for part in self._groups[self._at + ahead]]

    def arrays(self) -> list[Array]:
        scales = [] if self.raw is None else [a for a in (self.raw.mean, self.raw.inv_scale) if a is not None]
        return [*self.data.values(), *scales, self.order, self.divisors, self.cursor]

    def _fields(self, rows: int) -> dict[str, Field | None]:
        """Return shapes and dtypes of a micro-batch of `rows` rows."""
        fields = {name: Field((rows, *shape), self.dtypes[name]) for name, shape in self._shapes.items()}
        return {name: fields.get(name) for name in Prepared._fields}

    def _gather(self, rows: int, offset: int, memory: Memory, into: Mapping[str, Out]) -> None:
        """Gather the rows from `offset` after the cursor on."""
        arrays = (*(self.data.get(name) for name in Prepared._fields), self.divisors, self.order, self.cursor)
        if self.raw is None:
            memory.run(ops.gather, *arrays, rows=rows, offset=offset, into=into)
        else:
            scales = self.raw.mean, self.raw.inv_scale
            memory.run(ops.gather_raw, *arrays, *scales, rows=rows, offset=offset, into=into)


def load_resident(
    source: Source, inputs: Inputs, resident: Literal["auto"] | bool, before: Resident | None
) -> Resident | None:
    """Return a source's data in memory: `before` if it has them already; None if they stay on the host."""
    if not isinstance(source, ArraySource):
        if resident is True:
            raise InputError(
                f"fit: resident=True needs an array source, got {source!r}. Pass arrays, or resident='auto'."
            )
        return None
    if resident is False or (resident == "auto" and not fits(source, inputs)):
        return None
    return before if before is not None and before.source is source else Resident(source, inputs)


def raw_of(source: ArraySource, inputs: Inputs) -> Raw | None:
    """Return the raw inputs of a source if native kernels can read them without a copy; else None."""
    plain = inputs.backend.name == "numpy" and inputs.network.storage == inputs.network.dtype
    plain = plain and source.dtype == inputs.network.dtype  # else its batches are rounded to another dtype
    if not plain or type(source) is not ArraySource or backend_feature("numpy", "replayer") is None:
        return None
    raw = source.raw()
    return None if raw is None or ops.gather_raw.resolve("auto", raw.x)[0] is None else raw


def fits(source: ArraySource, inputs: Inputs) -> bool:
    """Whether a source's data need at most `SHARE` of a GPU's free memory, or on a CPU no copy of the inputs."""
    free = inputs.backend.free_bytes()
    if free is None:
        return raw_of(source, inputs) is not None
    first = _first(source, inputs)
    dtypes, like = inputs.dtypes(first), {name: a for name, a in first._asdict().items() if a is not None}
    sizes = {name: 2 if "16" in dtypes[name] else np.dtype(dtypes[name]).itemsize for name in like}
    row = sum(int(np.prod(a.shape[1:])) * sizes[name] for name, a in like.items())
    return source.rows * (row + 16) <= SHARE * free  # 16: an index of the order, and a divisor


def _first(source: ArraySource, inputs: Inputs) -> Prepared:
    return inputs.prepare(source.take(np.arange(min(2, source.rows))))
