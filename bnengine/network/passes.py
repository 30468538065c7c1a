"""Evaluation passes: recorded once for each shape, then one native call each, on the arrays of the moment."""

from collections.abc import Callable, Hashable, Sequence
from threading import Lock
from typing import Any, NamedTuple

import numpy as np

from .._typing import Array
from ..fused import backend_feature
from ..runtime.memory import Arena, Buffers, Memory
from ..runtime.modes import current_mode
from ..runtime.plan import Plan, view_of

KEPT = 8  # plans at most; the one that was not used for longest goes
ROWS = 1024  # of a pass: so what lies between its layers is small, and stays in the caches

Arrays = tuple[Array, ...]


class _Recorded(NamedTuple):
    """What runs a recorded pass on other arguments and outputs, None where it has to go op by op; its outputs."""

    again: Callable[..., None] | None
    outputs: tuple[tuple[tuple[int, ...], Any], ...] = ()


class InferenceCache:
    """Runs a network's passes on NumPy arrays: the first one of a kind is recorded, later ones are one native call.

    A pass reads its arguments where they are, parameters and statistics as they are by then, and writes to new arrays,
    so that nothing it gave is overwritten by another. Threads may call it at a time: one that finds another at work
    runs op by op, in memory of its own, to the same bytes.
    """

    def __init__(self) -> None:
        self._memory, self._inputs, self._lock = Arena("auto"), Buffers(), Lock()
        self._kept: dict[Hashable, _Recorded] = {}
        self._last: Hashable = None
        self._layout = 0

    def __call__(
        self,
        kind: Hashable,
        arguments: Sequence[Array],
        owned: Callable[[], Sequence[Array]],
        run: Callable[..., Arrays],
    ) -> Arrays:
        """run(*arguments, memory=...): new arrays. An argument may be None.

        `kind`: shapes and dtypes of the arguments, and all that `run` holds as a constant. `owned`: the memory that it
        reads beside its arguments. More than `ROWS` rows go op by op, or their memory would be held.
        """
        large = arguments[0] is not None and arguments[0].shape[0] > ROWS
        if large or current_mode() != "auto" or not self._lock.acquire(blocking=False):
            return run(*arguments, memory=Memory())
        try:
            found = self._kept.get(kind)
            if found is None:
                return self._record(kind, arguments, owned(), run)
            if kind != self._last:
                self._kept[kind], self._last = self._kept.pop(kind), kind
            if found.again is not None:
                outputs = tuple([np.empty(shape, dtype) for shape, dtype in found.outputs])
                found.again(*[_ready(x) for x in arguments if x is not None], *outputs)
                return outputs
        finally:
            self._lock.release()
        return run(*arguments, memory=Memory())

    def forget(self) -> None:
        """Record every kind anew."""
        with self._lock:
            self._kept.clear()

    @property
    def plans(self) -> list[Hashable]:
        """The kinds that run as one native call."""
        return [kind for kind, found in self._kept.items() if found.again is not None]

    @property
    def nbytes(self) -> int:
        """Bytes held for what lies between the layers."""
        return self._memory.nbytes + self._inputs.nbytes

    def _record(
        self, kind: Hashable, arguments: Sequence[Array | None], owned: Sequence[Array], run: Callable[..., Arrays]
    ) -> Arrays:
        """Run it for the first time, on copies of the arguments: a plan must not keep a user's arrays alive."""
        memory = self._memory
        inputs = [self._copy(i, x) for i, x in enumerate(x for x in arguments if x is not None)]
        copies = iter(inputs)
        held = [None if x is None else next(copies) for x in arguments]
        with memory.recording([*owned, *inputs]) as plan:
            outputs = run(*held, memory=memory)
        if memory.layout != self._layout:
            self._kept.clear()
            self._layout = memory.layout
        while len(self._kept) >= KEPT:
            del self._kept[next(iter(self._kept))]
        self._kept[kind], self._last = _recorded(plan, inputs, outputs), kind
        return tuple(x.copy() for x in outputs)

    def _copy(self, i: int, x: Array) -> Array:
        held = self._inputs.array(i, x.shape, x.dtype, x)
        held[...] = x
        return held


def _recorded(plan: Plan, arguments: Sequence[Array], outputs: Arrays) -> _Recorded:
    replayer = backend_feature("numpy", "replayer")
    if plan.reasons or replayer is None or not all(_written(plan, x) for x in outputs):
        return _Recorded(None)
    found = replayer(plan)
    if isinstance(found, str):
        return _Recorded(None)
    return _Recorded(found.bound(*arguments, *outputs), tuple((x.shape, x.dtype) for x in outputs))


def _written(plan: Plan, x: Array) -> bool:
    """Whether a launch writes x, all of it and nothing else."""
    view = view_of(x)
    wholes = (view_of(y)[:2] for launch in plan.launches for y in launch.outputs)
    return bool(x.flags.c_contiguous) and view[:2] in wholes


def _ready(x: Array) -> Array:
    """x as native kernels read it: itself, unless it is strided or not aligned."""
    flags = x.flags
    return x if flags.c_contiguous and flags.aligned else x.copy(order="C")
