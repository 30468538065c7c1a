"""Where the outputs of ops live, which version of an op runs there, and what happens to a launch."""

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


class Dispatched(Protocol):
    """What the choice of a version needs of an op."""

    name: str

    def resolve(self, mode: Mode, x: Array) -> tuple[Callable[..., Any] | None, Reason | None]:
        """(launcher, None) for arrays like x, or (None, why the reference runs)."""


class Choice(NamedTuple):
    """Which version of an op runs for one library and dtype, and why not a fused one."""

    op: str
    library: str
    dtype: str
    version: str
    reason: Reason | None = None

    @property
    def why(self) -> str:
        """Why the reference runs, in words; "" where a fused version does."""
        return "" if self.reason is None else self.reason.text


class Memory:
    """New arrays for every output: what a user's own calls get."""

    def __init__(self, mode: Mode | None = None) -> None:
        self.mode: Mode = mode or current_mode()
        self._launchers: dict[tuple[str, type, Any], Callable[..., Any] | None] = {}
        self._choices: list[Choice] = []
        self.generation = 0

    def launcher(self, op: Dispatched, args: tuple[Any, ...]) -> Callable[..., Any] | None:
        """The fused version of `op` for arrays like the first argument, None for the reference: settled once."""
        x = args[0]
        key = op.name, type(x), getattr(x, "dtype", None)
        if key not in self._launchers:
            launcher, reason = op.resolve(self.mode, x)
            version = "reference" if launcher is None else f"{launcher.__module__}.{launcher.__qualname__}"
            self._launchers[key] = launcher
            self._choices.append(Choice(op.name, type(x).__module__.split(".")[0], str(key[2]), version, reason))
        return self._launchers[key]

    def run(self, op: Callable[..., R], *args: Any, **options: Any) -> R:
        """Run an op, or anything else that takes `memory=`, here: `memory.run(ops.affine, x, W)`."""
        return op(*args, memory=self, **options)

    def explain(self) -> list[Choice]:
        """Each (op, library, dtype) met so far, the version that runs, and the condition that a fused one failed."""
        return list(self._choices)

    @property
    def fuses(self) -> bool:
        """Whether a fused version of any op ran here."""
        return any(launcher is not None for launcher in self._launchers.values())

    def outputs(self, into: Mapping[str, Out]) -> "Outputs":
        """What a launcher asks for its outputs."""
        return Outputs(self, into)

    def begin(self) -> None:
        """A forward pass begins: nothing to do where every output is new."""

    def empty(self, shape: tuple[int, ...], dtype: DType, like: Array) -> Array:
        """An uninitialised array of the library and device of `like`."""
        return namespace(like).empty(shape, dtype=dtype)

    def scratch(self, shapes: Sequence[tuple[tuple[int, ...], DType]], like: Array) -> tuple[Array, ...]:
        """Working memory of one launch."""
        return tuple(self.empty(shape, dtype, like) for shape, dtype in shapes)

    def launch(self, launch: Launch) -> None:
        """Run it at once."""
        launch()


class Outputs:
    """What a launcher sees: it asks for outputs and scratch, and launches; where they live is not its business."""

    def __init__(self, memory: Memory, into: Mapping[str, Out]) -> None:
        self._memory, self._into = memory, into

    def array(self, field: str, shape: tuple[int, ...], dtype: DType, like: Array) -> Array:
        """The array that output `field` is written to."""
        return self._into[field].array if field in self._into else self._memory.empty(shape, dtype, like)

    def adds(self, field: str) -> bool:
        """Whether output `field` is combined with what its array holds."""
        return field in self._into and self._into[field].adds

    def given(self, field: str) -> bool:
        """Whether output `field` has a destination of its own."""
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
        """Run kernel(*whole, *reads, *writes, *scratch, *scalars), and record it where a step is recorded."""
        like = next(x for x in (*writes, *reads, *whole) if x is not None)
        working = self._memory.scratch(scratch, like)
        self._memory.launch(Launch(kernel, tuple(whole), tuple(reads), tuple(writes), working, tuple(scalars), split))


class Buffers:
    """Byte buffers taken in the same order again and again; an array is a prefix of one, which grows where it must."""

    def __init__(self) -> None:
        self._bytes: list[Array] = []
        self.grown = 0

    def array(self, i: int, shape: tuple[int, ...], dtype: DType, like: Array) -> Array:
        """Buffer i as an array of this shape; a larger one is allocated if it is too small."""
        size = prod(shape) * np.dtype(dtype).itemsize
        if i == len(self._bytes):
            self._bytes.append(_aligned(size, like))
        elif self._bytes[i].nbytes < size:
            self._bytes[i] = _aligned(size, like)
            self.grown += 1
        return self._bytes[i][:size].view(dtype).reshape(shape)

    @property
    def nbytes(self) -> int:
        """Bytes held."""
        return sum(int(b.nbytes) for b in self._bytes)

    def fill(self, value: int) -> None:
        """Every byte set to `value`: 255 makes every float a NaN."""
        for b in self._bytes:
            b[...] = value


def _aligned(size: int, like: Array) -> Array:
    """`size` bytes that begin on a cache line."""
    raw = namespace(like).empty(size + ALIGNMENT, dtype=np.uint8)
    offset = -view_of(raw).start % ALIGNMENT
    return raw[offset : offset + size]


class Arena(Memory):
    """The same memory again for every forward pass that begins; a smaller batch gets prefixes of it.

    What the launchers of fused versions ask for lives here; references, which are pure, return arrays of their own. A
    generation says which pass the memory belongs to: what is left of an older one is overwritten.
    """

    def __init__(self, mode: Mode | None = None) -> None:
        super().__init__(mode)
        self.outputs_held, self.worker = Buffers(), Buffers()  # a worker's scratch is the same for every launch
        self._cursor = 0
        self._owned: Sequence[Array] = ()
        self._plan: Plan | None = None

    @property
    def layout(self) -> int:
        """Changes when a buffer had to grow: plans of an older layout point to memory that is not in use any more."""
        return self.outputs_held.grown + self.worker.grown

    @property
    def nbytes(self) -> int:
        """Bytes held for outputs and scratch."""
        return self.outputs_held.nbytes + self.worker.nbytes

    def begin(self) -> None:
        """A forward pass begins, and takes the memory over from the one before."""
        self.generation, self._cursor = self.generation + 1, 0

    def empty(self, shape: tuple[int, ...], dtype: DType, like: Array) -> Array:
        """The next buffer, as an array of this shape."""
        self._cursor += 1
        return self.outputs_held.array(self._cursor - 1, shape, dtype, like)

    def scratch(self, shapes: Sequence[tuple[tuple[int, ...], DType]], like: Array) -> tuple[Array, ...]:
        """The worker's own buffers, the same for every launch."""
        return tuple(self.worker.array(i, shape, dtype, like) for i, (shape, dtype) in enumerate(shapes))

    def launcher(self, op: Dispatched, args: tuple[Any, ...]) -> Callable[..., Any] | None:
        """As everywhere; a reference inside a recorded step is a reason that it cannot be replayed."""
        launcher = super().launcher(op, args)
        obstacle = Obstacle(op=op.name)
        if launcher is None and self._plan is not None and obstacle not in self._plan.reasons:
            self._plan.reasons.append(obstacle)
        return launcher

    def launch(self, launch: Launch) -> None:
        """Run it at once, and record it if a step is being recorded that can still be replayed."""
        launch()
        if self._plan is not None and not self._plan.reasons:
            if not self._plan.launches:
                self._plan.own(self._owned)
            if self._plan.unwritten(launch) is not None:
                self.outside(f"what {name_of(launch.kernel)} reads was computed outside the ops")
            else:
                self._plan.record(launch)

    def outside(self, what: str) -> None:
        """Something was computed outside the ops, told in a sentence: a step that is recorded cannot be replayed."""
        if self._plan is not None:
            self._plan.reasons.append(Obstacle(outside=what))

    @contextmanager
    def recording(self, owned: Sequence[Array]) -> Iterator[Plan]:
        """Inside, launches are appended to the plan, which holds as long as `layout` stays.

        `owned`: memory outside the arena that lives as long as the plan and that a replay may read: parameters,
        statistics, inputs.
        """
        plan = Plan()
        self._plan, self._owned = plan, owned
        try:
            yield plan
        finally:
            self._plan, self._owned = None, ()

    def poison(self) -> None:
        """Fill all memory with NaN: nothing may depend on what an earlier step left."""
        self.outputs_held.fill(255)
        self.worker.fill(255)
