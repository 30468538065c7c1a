"""Where the outputs of ops are allocated, which version of an op runs there, and what happens to a launch."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from math import prod
from typing import Any, NamedTuple, Protocol, TypeVar

import numpy as np

from .._typing import Array, DType
from ..arrays.namespaces import namespace
from .modes import Mode, Out, current_mode
from .plan import Launch, Obstacle, Plan, name_of, view_of
from .reasons import Reason

ALIGNMENT = 64  # bytes, a cache line
R = TypeVar("R")


class Resolvable(Protocol):
    """The part of an op that dispatch needs."""

    name: str

    def resolve(self, mode: Mode, x: Array) -> tuple[Callable[..., Any] | None, Reason | None]:
        """Return (launcher, None) for arrays like x, or (None, why the reference runs)."""


class Dispatch(NamedTuple):
    """The version of an op that runs for one library and dtype, and why it is not a fused one."""

    op: str
    library: str
    dtype: str
    version: str
    reason: Reason | None = None

    @property
    def why(self) -> str:
        """The reason why the reference runs, in words; "" if a fused version runs."""
        return "" if self.reason is None else self.reason.text


class Memory:
    """Allocates new arrays for every output: what a user's own calls get."""

    def __init__(self, mode: Mode | None = None) -> None:
        self.mode: Mode = mode or current_mode()
        self._launchers: dict[tuple[str, type, Any], Callable[..., Any] | None] = {}
        self._dispatches: list[Dispatch] = []
        self.generation = 0

    def launcher(self, op: Resolvable, args: tuple[Any, ...]) -> Callable[..., Any] | None:
        """Return the fused version of `op` for arrays like the first argument, None for the reference; decided once."""
        x = args[0]
        key = op.name, type(x), getattr(x, "dtype", None)
        if key not in self._launchers:
            launcher, reason = op.resolve(self.mode, x)
            version = "reference" if launcher is None else f"{launcher.__module__}.{launcher.__qualname__}"
            self._launchers[key] = launcher
            self._dispatches.append(Dispatch(op.name, type(x).__module__.split(".")[0], str(key[2]), version, reason))
        return self._launchers[key]

    def run(self, op: Callable[..., R], *args: Any, **options: Any) -> R:
        """Run an op, or any function that takes `memory=`, in this memory: `memory.run(ops.affine, x, W)`."""
        return op(*args, memory=self, **options)

    def explain(self) -> list[Dispatch]:
        """Return, for each (op, library, dtype) so far, the version that runs, and why it is not a fused one."""
        return list(self._dispatches)

    def outputs(self, into: Mapping[str, Out]) -> "Outputs":
        """Return the object that a launcher gets its outputs from."""
        return Outputs(self, into)

    def begin(self) -> None:
        """Begin a forward pass; nothing to do where every output is new."""

    def empty(self, shape: tuple[int, ...], dtype: DType, like: Array) -> Array:
        """Return an uninitialized array of the library and device of `like`."""
        return namespace(like).empty(shape, dtype=dtype)

    def scratch(self, shapes: Sequence[tuple[tuple[int, ...], DType]], like: Array) -> tuple[Array, ...]:
        """Return working memory for one launch."""
        return tuple(self.empty(shape, dtype, like) for shape, dtype in shapes)

    def launch(self, launch: Launch) -> None:
        """Run the launch at once."""
        launch()


class Outputs:
    """Gives a launcher its outputs and scratch, and runs or records its launches."""

    def __init__(self, memory: Memory, into: Mapping[str, Out]) -> None:
        self._memory, self._into = memory, into

    def array(self, field: str, shape: tuple[int, ...], dtype: DType, like: Array) -> Array:
        """Return the array that output `field` is written to."""
        return self._into[field].array if field in self._into else self._memory.empty(shape, dtype, like)

    def adds(self, field: str) -> bool:
        """Whether output `field` is combined with what its array holds."""
        return field in self._into and self._into[field].adds

    def given(self, field: str) -> bool:
        """Return whether output `field` has a destination."""
        return field in self._into

    def launch(
        self,
        kernel: Callable[..., None],
        *,
        whole: Sequence[Array | None] = (),
        reads: Sequence[Array | None] = (),
        writes: Sequence[Array | None] = (),
        scratch: Sequence[tuple[tuple[int, ...], DType]] = (),
        scalars: Sequence[Any] = (),
        split: int | None = None,
    ) -> None:
        """Run kernel(*whole, *reads, *writes, *scratch, *scalars), and record it where a step is recorded.

        For the arguments see `Launch`; `scratch` holds the (shape, dtype) of each working array.
        """
        working: tuple[Array, ...] = ()
        if scratch:
            working = self._memory.scratch(scratch, next(x for x in (*writes, *reads, *whole) if x is not None))
        self._memory.launch(Launch(kernel, tuple(whole), tuple(reads), tuple(writes), working, tuple(scalars), split))


class Buffers:
    """Byte buffers used in the same order again and again; an array is a prefix of one, which grows when needed."""

    def __init__(self) -> None:
        self._bytes: list[Array] = []
        self.grown = 0

    def array(self, i: int, shape: tuple[int, ...], dtype: DType, like: Array) -> Array:
        """Return buffer i as an array of this shape; allocate a larger one if it is too small."""
        size = prod(shape) * np.dtype(dtype).itemsize
        if i == len(self._bytes):
            self._bytes.append(_aligned(size, like))
        elif self._bytes[i].nbytes < size:
            self._bytes[i] = _aligned(size, like)
            self.grown += 1
        return self._bytes[i][:size].view(dtype).reshape(shape)

    @property
    def nbytes(self) -> int:
        """Bytes allocated."""
        return sum(int(b.nbytes) for b in self._bytes)


def _aligned(size: int, like: Array) -> Array:
    """Return `size` bytes that begin on a cache line."""
    raw = namespace(like).empty(size + ALIGNMENT, dtype=np.uint8)
    offset = -view_of(raw).start % ALIGNMENT
    return raw[offset : offset + size]


class Arena(Memory):
    """Reuses one set of buffers for every forward pass; smaller batches use a prefix.

    Launchers of fused versions get their outputs from it; references, which are pure, return new arrays. `generation`
    counts the passes: outputs of an earlier one are overwritten.
    """

    def __init__(self, mode: Mode | None = None) -> None:
        super().__init__(mode)
        self.outputs_held, self.worker = Buffers(), Buffers()  # a worker's scratch is the same for every launch
        self._cursor = 0
        self._owned: Sequence[Array] = ()
        self._plan: Plan | None = None

    @property
    def layout(self) -> int:
        """Changes when a buffer grows: plans of an older layout point to memory that is no longer used."""
        return self.outputs_held.grown + self.worker.grown

    @property
    def nbytes(self) -> int:
        """Bytes allocated for outputs and scratch."""
        return self.outputs_held.nbytes + self.worker.nbytes

    def begin(self) -> None:
        """Begin a forward pass, which overwrites the outputs of the previous one."""
        self.generation, self._cursor = self.generation + 1, 0

    def empty(self, shape: tuple[int, ...], dtype: DType, like: Array) -> Array:
        """Return the next buffer as an array of this shape."""
        self._cursor += 1
        return self.outputs_held.array(self._cursor - 1, shape, dtype, like)

    def scratch(self, shapes: Sequence[tuple[tuple[int, ...], DType]], like: Array) -> tuple[Array, ...]:
        """Return the worker's buffers, the same for every launch."""
        return tuple(self.worker.array(i, shape, dtype, like) for i, (shape, dtype) in enumerate(shapes))

    def launcher(self, op: Resolvable, args: tuple[Any, ...]) -> Callable[..., Any] | None:
        """As `Memory.launcher`; a reference inside a recorded step keeps the step from being replayed."""
        launcher = super().launcher(op, args)
        obstacle = Obstacle(op=op.name)
        if launcher is None and self._plan is not None and obstacle not in self._plan.reasons:
            self._plan.reasons.append(obstacle)
        return launcher

    def launch(self, launch: Launch) -> None:
        """Run the launch, and record it if a step is recorded that can still be replayed."""
        launch()
        if self._plan is not None and not self._plan.reasons:
            if not self._plan.launches:
                self._plan.own(self._owned)
            if self._plan.unwritten(launch) is not None:
                self.outside(f"what {name_of(launch.kernel)} reads was computed outside the ops")
            else:
                self._plan.record(launch)

    def outside(self, what: str) -> None:
        """Mark a recorded step as not replayable, since something was computed outside the ops.

        Args:
            what: a sentence for the log.
        """
        if self._plan is not None:
            self._plan.reasons.append(Obstacle(outside=what))

    @contextmanager
    def recording(self, owned: Sequence[Array]) -> Iterator[Plan]:
        """Record the launches of the `with` block in a plan, which is valid while `layout` stays the same.

        Args:
            owned: memory outside the arena that a replay may read and that lives as long as the plan: parameters,
                statistics, inputs.
        """
        plan = Plan()
        self._plan, self._owned = plan, owned
        try:
            yield plan
        finally:
            self._plan, self._owned = None, ()
