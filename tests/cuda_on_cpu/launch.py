"""A launch of a kernel as a plan declares it, run under every thread schedule in guarded memory."""

import functools
import shutil
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np

from tests.cuda_on_cpu.module import SCHEDULES, CpuKernel, CpuModule
from tests.cuda_on_cpu.redzones import forbid
from tests.cuda_on_cpu.source import kernel_source
from tests.cuda_on_cpu.storage import Storage
from tests.support import missing

BLOCK = (32, 8)
GUARD = 512  # bytes before and behind an array that nothing may touch
PATTERN = 0xA5


def need_compiler() -> None:
    """Skip the test where there is no g++."""
    if shutil.which("g++") is None:
        missing("g++", "there is no g++ on the PATH to compile the kernels for the CPU")


@functools.cache
def module(file: str, names: tuple[str, ...]) -> Callable[[str], CpuKernel]:
    """The instances `names` of kernels/cuda/<file>, by name."""
    need_compiler()
    coming = _coming.pop((file, names), None)
    return (coming.result() if coming else CpuModule(kernel_source(file), names)).get_function


_coming: dict[tuple[str, tuple[str, ...]], Future[CpuModule]] = {}


def compile_ahead(instances: dict[str, tuple[str, ...]], at_once: int) -> None:
    """Begin to compile these instances of files, so many files at a time, while other tests run."""
    pool = ThreadPoolExecutor(at_once)
    for file, names in instances.items():
        _coming[file, names] = pool.submit(CpuModule, kernel_source(file), names)


def give_up_compiling() -> None:
    """Let no file be compiled for tests that do not come any more."""
    for coming in _coming.values():
        coming.cancel()


def instance(kernel: str, *arguments: Any) -> str:
    """The name expression of an instance: bnengine::kernel<arguments>."""
    given = ", ".join(str(a) for a in arguments)
    return f"bnengine::{kernel}<{given}>" if arguments else f"bnengine::{kernel}"


def enumerator(activation: str) -> str:
    return f"bnengine::Activation::{activation}"


class Path(NamedTuple):
    """How a launch goes about its arrays: vector width, splits of the rows, elements off a 16-byte address."""

    storage: Storage
    vector: int
    splits: int = 1
    offset: int = 0

    @property
    def which(self) -> tuple[str, int]:
        """The template arguments that it settles."""
        return self.storage.name, self.vector


def slice_width(path: Path) -> int:
    """The channels of a block: 128 bytes of a row, or 32 channels."""
    return 32 if path.vector == 1 else 8 * path.vector


def slices(path: Path, channels: int) -> int:
    """The blocks that share out the channels."""
    return -(-channels // slice_width(path))


class Destination(NamedTuple):
    """What memory holds before, or None where nothing is wanted, and whether a result is added to it."""

    array: Any
    adds: bool = False


class Launch(NamedTuple):
    """kernel(*whole, *reads, *writes, *scratch, *scalars): arguments and parameters are in this one order.

    `writes` hold what the memory held before. An array that stands among the reads as well is updated in place.
    """

    kernel: CpuKernel
    grid: tuple[int, ...]
    whole: tuple[Any, ...] = ()
    reads: tuple[Any, ...] = ()
    writes: tuple[Any, ...] = ()
    scratch: tuple[Any, ...] = ()
    scalars: tuple[Any, ...] = ()
    shared: int = 0


class Guarded:
    """A copy of an array between two zones that must stay as they are, `offset` elements from a 16-byte address."""

    def __init__(self, array: np.ndarray, offset: int) -> None:
        shift = offset * array.itemsize
        self._zone = np.full(array.nbytes + 2 * GUARD + 16 + shift, PATTERN, np.uint8)
        self._start = -self._zone.ctypes.data % 16 + GUARD + shift
        self._end = self._start + array.nbytes
        self.array = self._zone[self._start : self._end].view(array.dtype).reshape(array.shape)
        self.array[...] = array
        forbid(self._zone[: self._start])
        forbid(self._zone[self._end :])

    def intact(self) -> bool:
        """Whether nothing was written outside of the array."""
        return bool(np.all(self._zone[: self._start] == PATTERN) and np.all(self._zone[self._end :] == PATTERN))


def unwritten(shape: Any, dtype: Any) -> np.ndarray:
    """Memory of an output that nothing was written to: NaN in every floating type."""
    dtype = np.dtype(dtype)
    return np.full(int(np.prod(shape)) * dtype.itemsize, 0xFF, np.uint8).view(dtype).reshape(shape)


def arrivals(count: int = 1) -> np.ndarray:
    """Counters of blocks: zero before a launch, and zero again behind it."""
    return np.zeros(count, np.uint32)


def simulate(launch: Launch, offset: int = 0) -> list[Any]:
    """What the launch writes: the same bytes under all schedules, with every other byte of memory as it was."""
    outcomes = [_run(launch, schedule, offset) for schedule in SCHEDULES]
    for schedule, outcome in zip(SCHEDULES[1:], outcomes[1:], strict=True):
        for i, (first, other) in enumerate(zip(outcomes[0], outcome, strict=True)):
            same = first is other is None or first.tobytes() == other.tobytes()
            assert same, f"{launch.kernel.name}: output {i} depends on the schedule ({schedule} against forward)"
    return outcomes[0]


def _run(launch: Launch, schedule: str, offset: int) -> list[Any]:
    given = (*launch.whole, *launch.reads, *launch.writes, *launch.scratch)
    memory = {id(a): Guarded(a, offset) for a in given if a is not None}
    arguments = [None if a is None else memory[id(a)].array for a in given]
    launch.kernel(
        launch.grid, BLOCK, [*arguments, *launch.scalars], shared_mem=launch.shared, schedule=schedule, seed=len(given)
    )
    name, written = launch.kernel.name, {id(a) for a in (*launch.writes, *launch.scratch)}
    for i, a in enumerate(given):
        if a is None:
            continue
        assert memory[id(a)].intact(), f"{name}: wrote outside of argument {i}"
        if id(a) not in written:
            assert memory[id(a)].array.tobytes() == a.tobytes(), f"{name}: wrote to its input, argument {i}"
    for a in launch.scratch:
        if a is not None and a.dtype == np.uint32:
            assert not memory[id(a)].array.any(), f"{name}: left a counter that is not zero"
    return [None if a is None else memory[id(a)].array.copy() for a in launch.writes]
