"""A recorded step: launches on fixed memory, which of them may run block by block, which beside each other.

A plan knows kernels as callables and nothing of what they are: native code on a CPU and CUDA kernels are recorded
alike.
"""

from bisect import bisect_left, insort
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from .._typing import Array
from ..errors import InputError

COLUMNS, ROWS = -1, 0


class Launch(NamedTuple):
    """One kernel on given memory: kernel(*whole, *reads, *writes, *scratch, *scalars).

    `whole` arrays are read in full by every block of the launch; `reads` and `writes` are cut along `split`: -1
    columns (or a flat buffer), 0 rows, None for a single block. So arguments and locality are one statement. `scratch`
    belongs to the worker that runs a block: it carries nothing from launch to launch and orders nothing. None stands
    for an absent array.
    """

    kernel: Callable[..., None]
    whole: tuple[Array | None, ...] = ()
    reads: tuple[Array | None, ...] = ()
    writes: tuple[Array | None, ...] = ()
    scratch: tuple[Array, ...] = ()
    scalars: tuple[Any, ...] = ()
    split: int | None = None

    def __call__(self) -> None:
        """Run it, as one block."""
        self.kernel(*self.whole, *self.reads, *self.writes, *self.scratch, *self.scalars)

    def block(self, start: int, stop: int) -> "Launch":
        """The same launch on the columns or rows [start, stop) of what it reads and writes."""

        def cut(arrays: tuple[Array | None, ...]) -> tuple[Array | None, ...]:
            rows = slice(start, stop) if self.split == ROWS else (..., slice(start, stop))
            return tuple(None if x is None else x[rows] for x in arrays)

        scratch = cut(self.scratch) if self.split == COLUMNS else self.scratch
        return self._replace(reads=cut(self.reads), writes=cut(self.writes), scratch=scratch)

    @property
    def inputs(self) -> Iterator[Array]:
        """The arrays it reads."""
        return (x for x in (*self.whole, *self.reads) if x is not None)

    @property
    def outputs(self) -> Iterator[Array]:
        """The arrays it writes."""
        return (x for x in self.writes if x is not None)

    @property
    def width(self) -> int:
        """How many columns or rows its blocks divide."""
        first = next(self.outputs)
        return int(first.shape[0] if self.split == ROWS else first.shape[-1])


class View(NamedTuple):
    """Where an array lies: its first byte, the end behind its last, shape and strides in bytes."""

    start: int
    stop: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


def view_of(x: Array) -> View:
    """The memory of a NumPy or CuPy array, by the interface that each offers."""
    interface = getattr(x, "__cuda_array_interface__", None) or x.__array_interface__
    shape, itemsize = tuple(interface["shape"]), int(interface["typestr"][2:])
    strides = interface.get("strides")
    if strides is None:
        strides, step = [0] * len(shape), itemsize
        for axis in reversed(range(len(shape))):
            strides[axis], step = step, step * shape[axis]
    start = stop = int(interface["data"][0])
    for n, stride in zip(shape, strides, strict=True):
        if n == 0:
            return View(start, start, shape, tuple(strides))
        start, stop = start + min(0, (n - 1) * stride), stop + max(0, (n - 1) * stride)
    return View(start, stop + itemsize, shape, tuple(strides))


class Spans:
    """A set of byte ranges that answers in logarithmic time whether another range touches it."""

    def __init__(self) -> None:
        self._ranges: list[tuple[int, int]] = []

    def add(self, start: int, stop: int) -> None:
        """Take in [start, stop), joined with the ranges that it touches."""
        if start == stop:
            return
        i = bisect_left(self._ranges, (start, start))
        if i and self._ranges[i - 1][1] >= start:
            i -= 1
        while i < len(self._ranges) and self._ranges[i][0] <= stop:
            low, high = self._ranges.pop(i)
            start, stop = min(start, low), max(stop, high)
        insort(self._ranges, (start, stop))

    def covers(self, start: int, stop: int) -> bool:
        """Whether every byte of [start, stop) is in the set."""
        i = bisect_left(self._ranges, (start + 1, 0)) - 1
        return start == stop or (i >= 0 and self._ranges[i][0] <= start and stop <= self._ranges[i][1])


def touch(a: View, b: View) -> bool:
    """Whether two arrays share a byte of their ranges."""
    return a.start < b.stop and b.start < a.stop


def independent(a: Launch, b: Launch) -> bool:
    """May block i of b run before block j of a, for all i != j?

    Only if both are cut alike, neither reads in full what the other writes, and memory that one writes and the other
    touches is the same view: an arena may hand the same bytes out again in another shape, and then block i of one is
    not block i of the other.
    """
    if a.split is None or a.split != b.split or a.width != b.width:
        return False
    for one, two in ((a, b), (b, a)):
        written = [view_of(w) for w in one.outputs]
        if any(touch(view_of(x), w) for x in two.whole if x is not None for w in written):
            return False
        others = [view_of(x) for x in (*two.reads, *two.writes) if x is not None]
        if any(touch(x, w) and x != w for x in others for w in written):
            return False
    return True


class _Touches:
    """Byte ranges and the stages that they were touched in."""

    def __init__(self) -> None:
        self._rows = np.empty((0, 3), np.int64)

    def add(self, views: Sequence[View], stage: int) -> None:
        """Take in views that a stage touches."""
        self._rows = np.concatenate([self._rows, *([[view.start, view.stop, stage]] for view in views)])

    def behind(self, views: Sequence[View]) -> int:
        """The first stage that comes behind all that touched one of the views."""
        start, stop, stages = self._rows.T
        return max((int(stages[(start < v.stop) & (v.start < stop)].max(initial=-1)) + 1 for v in views), default=0)


class Obstacle(NamedTuple):
    """What keeps a recorded step from being replayed: `op` ran by its reference, or `outside` describes other work."""

    op: str = ""
    outside: str = ""


class CannotReplay(Exception):
    """A recorded step cannot run as one call; the message says why."""


class Plan:
    """The launches of a step in their order; `reasons` holds what keeps it from being replayed."""

    def __init__(self) -> None:
        self.launches, self.reasons = list[Launch](), list[Obstacle]()
        self._known = Spans()

    def own(self, arrays: Iterable[Array]) -> None:
        """Memory that a replay may read without a launch having written it: parameters, statistics, inputs."""
        for x in arrays:
            view = view_of(x)
            self._known.add(view.start, view.stop)

    def record(self, launch: Launch) -> None:
        """Append a launch; one that reads memory nobody wrote is refused, for its values would be lost in a replay."""
        if (shape := self.unwritten(launch)) is not None:
            raise InputError(
                f"plan: {name_of(launch.kernel)} reads an array of shape {shape} that no launch wrote: it was computed "
                "outside the ops, and a replay would see its old value; make that computation an op"
            )
        self.own(launch.outputs)
        self.launches.append(launch)

    def unwritten(self, launch: Launch) -> tuple[int, ...] | None:
        """The shape of an array that a launch reads and no launch wrote, None where there is none."""
        views = map(view_of, launch.inputs)
        return next((view.shape for view in views if not self._known.covers(view.start, view.stop)), None)

    def replay(self) -> None:
        """Run the launches in their order."""
        for launch in self.launches:
            launch()

    def groups(self) -> list[list[Launch]]:
        """Runs of launches that may go block by block without a barrier between them."""
        groups: list[list[Launch]] = []
        for launch in self.launches:
            if groups and launch.split is not None and all(independent(before, launch) for before in groups[-1]):
                groups[-1].append(launch)
            else:
                groups.append([launch])
        return groups

    def stages(self) -> list[list[list[Launch]]]:
        """Groups that may run at once, stage behind stage: each group as soon as what it reads or overwrites allows."""
        read, written, stages = _Touches(), _Touches(), list[list[list[Launch]]]()
        for group in self.groups():
            reads = [view_of(x) for launch in group for x in launch.inputs]
            writes = [view_of(x) for launch in group for x in launch.outputs]
            stage = max(written.behind([*reads, *writes]), read.behind(writes))
            read.add(reads, stage)
            written.add(writes, stage)
            if stage == len(stages):
                stages.append([])
            stages[stage].append(group)
        return stages

    def replay_by_blocks(self, size: int) -> None:
        """Run each group block by block, `size` columns or rows at a time: what a cache-minded replayer does."""
        for group in self.groups():
            if group[0].split is None:
                for launch in group:
                    launch()
                continue
            for start in range(0, group[0].width, size):
                for launch in group:
                    launch.block(start, min(start + size, launch.width))()


def name_of(kernel: Callable[..., None]) -> str:
    """What messages call a kernel."""
    return getattr(kernel, "__name__", repr(kernel))
