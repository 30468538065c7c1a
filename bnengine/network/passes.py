"""InferenceCache: forward passes in evaluation mode, recorded once for each shape and replayed as one native call."""

from collections.abc import Callable, Hashable, Sequence
from threading import Lock
from typing import Any, NamedTuple

import numpy as np

from .._typing import Array
from ..fused import backend_feature
from ..runtime.memory import Arena, Buffers, Memory
from ..runtime.modes import current_mode
from ..runtime.plan import CannotReplay, Plan, view_of

MAX_PLANS = 8  # the least recently used one is dropped
ROWS = 1024  # at most in one pass, so that activations stay in the processor's caches

Arrays = tuple[Array, ...]


class _Recorded(NamedTuple):
    """A recorded pass: `again` runs it on other arguments and outputs (None: it runs op by op); shapes and dtypes."""

    again: Callable[..., None] | None
    outputs: tuple[tuple[tuple[int, ...], Any], ...] = ()


class InferenceCache:
    """Runs a network's passes on NumPy arrays: records the first one of a kind, replays later ones as one native call.

    A replay reads arguments, parameters and statistics without copies and writes to new arrays. Several threads may
    call it: while one uses the recorded memory, the others run op by op in new memory, to the same bytes.
    """

    def __init__(self) -> None:
        self._memory, self._inputs, self._lock = Arena("auto"), Buffers(), Lock()
        self._recorded: dict[Hashable, _Recorded] = {}
        self._last: Hashable = None
        self._layout = 0

    def __call__(
        self,
        kind: Hashable,
        arguments: Sequence[Array],
        owned: Callable[[], Sequence[Array]],
        run: Callable[..., Arrays],
    ) -> Arrays:
        """Return run(*arguments, memory=...): new arrays.

        More than `ROWS` rows run op by op, so that their memory is freed.

        Args:
            kind: shapes and dtypes of the arguments, and everything that `run` uses as a constant.
            arguments: arrays; one may be None.
            owned: returns the other memory that `run` reads.
            run: calls ops only.
        """
        large = arguments[0] is not None and arguments[0].shape[0] > ROWS
        if large or current_mode() != "auto" or not self._lock.acquire(blocking=False):
            return run(*arguments, memory=Memory())
        try:
            recorded = self._recorded.get(kind)
            if recorded is None:
                return self._record(kind, arguments, owned(), run)
            if kind != self._last:
                self._recorded[kind], self._last = self._recorded.pop(kind), kind
            if recorded.again is not None:
                outputs = tuple([np.empty(shape, dtype) for shape, dtype in recorded.outputs])
                recorded.again(*[_ready(x) for x in arguments if x is not None], *outputs)
                return outputs
        finally:
            self._lock.release()
        return run(*arguments, memory=Memory())

    def forget(self) -> None:
        """Drop all recordings."""
        with self._lock:
            self._recorded.clear()

    @property
    def plans(self) -> list[Hashable]:
        """The kinds that run as one native call."""
        return [kind for kind, recorded in self._recorded.items() if recorded.again is not None]

    @property
    def nbytes(self) -> int:
        """Bytes allocated for activations and copies of arguments."""
        return self._memory.nbytes + self._inputs.nbytes

    def _record(
        self, kind: Hashable, arguments: Sequence[Array | None], owned: Sequence[Array], run: Callable[..., Arrays]
    ) -> Arrays:
        """Run and record a pass on copies of the arguments: a plan must not keep a user's arrays alive."""
        memory = self._memory
        inputs = [self._copy(i, x) for i, x in enumerate(x for x in arguments if x is not None)]
        copies = iter(inputs)
        copied = [None if x is None else next(copies) for x in arguments]
        with memory.recording([*owned, *inputs]) as plan:
            outputs = run(*copied, memory=memory)
        if memory.layout != self._layout:
            self._recorded.clear()
            self._layout = memory.layout
        while len(self._recorded) >= MAX_PLANS:
            del self._recorded[next(iter(self._recorded))]
        self._recorded[kind], self._last = _recorded(plan, inputs, outputs), kind
        return tuple(x.copy() for x in outputs)

    def _copy(self, i: int, x: Array) -> Array:
        copy = self._inputs.array(i, x.shape, x.dtype, x)
        copy[...] = x
        return copy


def _recorded(plan: Plan, arguments: Sequence[Array], outputs: Arrays) -> _Recorded:
    replayer = backend_feature("numpy", "replayer")
    if plan.reasons or replayer is None or not all(_written(plan, x) for x in outputs):
        return _Recorded(None)
    try:
        replay = replayer(plan)
    except CannotReplay:
        return _Recorded(None)
    return _Recorded(replay.bound(*arguments, *outputs), tuple((x.shape, x.dtype) for x in outputs))


def _written(plan: Plan, x: Array) -> bool:
    """Whether a launch writes all of x and nothing else."""
    view = view_of(x)
    wholes = (view_of(y)[:2] for launch in plan.launches for y in launch.outputs)
    return bool(x.flags.c_contiguous) and view[:2] in wholes


def _ready(x: Array) -> Array:
    """Return x as native kernels read it: a copy if it is strided or not aligned."""
    flags = x.flags
    return x if flags.c_contiguous and flags.aligned else x.copy(order="C")
