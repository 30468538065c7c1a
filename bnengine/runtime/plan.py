"""A recorded step: launches on fixed memory, which of them may run block by block, and which at the same time.

A plan treats kernels as callables: native code on a CPU and CUDA kernels are recorded alike.
"""

from bisect import bisect_left, insort
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from .._typing import Array
from ..errors import InputError

COLUMNS, ROWS = -1, 0


class Launch(NamedTuple):
    """One kernel on given memory: kernel(*whole, *reads, *writes, *scratch, *scalars). None is an absent array.

    Attributes:
        whole: arrays that every block of the launch reads in full.
        reads, writes: arrays that are cut into blocks along `split`.
        scratch: belongs to the worker that runs a block, so it carries nothing between launches and orders nothing.
        split: -1 columns (or a flat buffer), 0 rows, None for a single block.
    """

    kernel: Callable[..., None]
    whole: tuple[Array | None, ...] = ()
    reads: tuple[Array | None, ...] = ()
    writes: tuple[Array | None, ...] = ()
    scratch: tuple[Array, ...] = ()
    scalars: tuple[Any, ...] = ()
    split: int | None = None

    def __call__(self) -> None:
        """Run it as one block."""
        self.kernel(*self.whole, *self.reads, *self.writes, *self.scratch, *self.scalars)

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
        """The number of columns or rows that its blocks divide."""
        first = next(self.outputs)
        return int(first.shape[0] if self.split == ROWS else first.shape[-1])


class View(NamedTuple):
    """The memory of an array: its first byte, the end after its last, shape and strides in bytes."""

    start: int
    stop: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


def view_of(x: Array) -> View:
    """Return the memory of a NumPy or CuPy array."""
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
    """A set of byte ranges that answers in logarithmic time whether it covers another range."""

    def __init__(self) -> None:
        self._ranges: list[tuple[int, int]] = []

    def add(self, start: int, stop: int) -> None:
        """Add [start, stop), joined with the ranges that it touches."""
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
        """Return whether every byte of [start, stop) is in the set."""
        i = bisect_left(self._ranges, (start + 1, 0)) - 1
        return start == stop or (i >= 0 and self._ranges[i][0] <= start and stop <= self._ranges[i][1])


def touch(a: View, b: View) -> bool:
    """Return whether two arrays share a byte of their ranges."""
    return a.start < b.stop and b.start < a.stop


def independent(a: Launch, b: Launch) -> bool:
    """Return whether block i of b may run before block j of a, for all i != j.

    True only if both are cut alike, neither reads in full what the other writes, and memory that one writes and the
    other touches is the same view. An arena may reuse the same bytes in another shape, and then block i of one is not
    block i of the other.
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
        """Add views that a stage touches."""
        self._rows = np.concatenate([self._rows, *([[view.start, view.stop, stage]] for view in views)])

    def after(self, views: Sequence[View]) -> int:
        """Return the first stage after all that touched one of the views."""
        start, stop, stages = self._rows.T
        return max((int(stages[(start < v.stop) & (v.start < stop)].max(initial=-1)) + 1 for v in views), default=0)


class Obstacle(NamedTuple):
    """A reason why a recorded step cannot be replayed: `op` ran by its reference, or `outside` describes other work."""

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
        """Add memory that a replay may read without a launch having written it: parameters, statistics, inputs."""
        for x in arrays:
            view = view_of(x)
            self._known.add(view.start, view.stop)

    def record(self, launch: Launch) -> None:
        """Append a launch.

        Raises:
            InputError: it reads memory that no launch wrote, so a replay would read old values.
        """
        if (shape := self.unwritten(launch)) is not None:
            raise InputError(
                f"plan: {name_of(launch.kernel)} reads an array of shape {shape} that no launch wrote: it was computed "
                "outside the ops, and a replay would see its old value. Make that computation an op."
            )
        self.own(launch.outputs)
        self.launches.append(launch)

    def unwritten(self, launch: Launch) -> tuple[int, ...] | None:
        """Return the shape of an array that a launch reads and no launch wrote; None if there is none."""
        views = map(view_of, launch.inputs)
        return next((view.shape for view in views if not self._known.covers(view.start, view.stop)), None)

    def replay(self) -> None:
        """Run the launches in their order."""
        for launch in self.launches:
            launch()

    def groups(self) -> list[list[Launch]]:
        """Return runs of launches that may go block by block without a barrier between them."""
        groups: list[list[Launch]] = []
        for launch in self.launches:
            if groups and launch.split is not None and all(independent(before, launch) for before in groups[-1]):
                groups[-1].append(launch)
            else:
                groups.append([launch])
        return groups

    def stages(self) -> list[list[list[Launch]]]:
        """Return groups that may run at the same time, stage by stage: each as early as its reads and writes allow."""
        read, written, stages = _Touches(), _Touches(), list[list[list[Launch]]]()
        for group in self.groups():
            reads = [view_of(x) for launch in group for x in launch.inputs]
            writes = [view_of(x) for launch in group for x in launch.outputs]
            stage = max(written.after([*reads, *writes]), read.after(writes))
            read.add(reads, stage)
            written.add(writes, stage)
            if stage == len(stages):
                stages.append([])
            stages[stage].append(group)
        return stages


def name_of(kernel: Callable[..., None]) -> str:
    """Return the name of a kernel for messages."""
    return getattr(kernel, "__name__", repr(kernel))
