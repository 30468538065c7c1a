"""The libraries that an op runs on: its reference on each array library, its kernels on each kind of device.

A library's `results` are the outputs of one example in every way that it can be run: each is within the bounds, and the
ways that give the same bits are compared here.
"""

import importlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import numpy as np
import pytest

from bnengine import threads
from bnengine.arrays.backend import Backend
from bnengine.fused.cpu import _launch, _load, native
from bnengine.fused.cpu.native import NativeKernel, replayer
from bnengine.ops import REGISTRY, Example, Out, using
from bnengine.runtime.memory import Arena, Memory
from tests.contracts.cases import bits, fields
from tests.support import poison

Outputs = dict[str, Any]
FULL = ("float32", "float64")
ALL = (*FULL, "float16", "bfloat16")
WIDE = ("add_epoch_sums", "average", "check_step", "commit", "count_step", "merge")  # ops without arrays of 16 bits
FLUSHED = "subnormal numbers are 0"  # as CuPy compiles
# Of bnengine.fused.cuda.
LAUNCHERS = ("_launch", "batch_norm", "dense", "dropout", "gather", "loss", "pointwise", "update")


class Library:
    """The references, on the arrays of a backend."""

    mode: Any = "reference"
    kernels = flushes = False
    dtypes: tuple[str, ...] = ALL

    def __init__(self, backend: Backend) -> None:
        self.backend = backend
        if backend.name == "array_api_strict":
            self.dtypes = FULL

    @property
    def names(self) -> list[str]:
        """The ops that it has."""
        return sorted(REGISTRY)

    def put(self, value: Any, shift: int = 0) -> Any:  # noqa: ARG002 -- of kernels only
        """A copy in this library; `shift`: elements off the address that memory begins at."""
        return self.backend.asarray(value, copy=True) if isinstance(value, np.ndarray) else value

    def get(self, value: Any) -> Any:
        return value if value is None else self.backend.to_numpy(value)

    def run(
        self, name: str, args: Any, options: Any, into: Mapping[str, Out] | None = None, memory: Memory | None = None,
        given: Any = None,
    ) -> Outputs:  # fmt: skip
        """The outputs for arrays of this library, in NumPy; no argument may change. `given`: the arguments in NumPy."""
        given = given or [self.get(a) if hasattr(a, "shape") else a for a in args]
        before = [(a, old.tobytes()) for a, old in zip(args, given, strict=True) if hasattr(a, "shape")]
        with using(self.mode), np.errstate(all="ignore"):
            result = REGISTRY[name](*args, memory=memory or Memory(), into=into, **options)
        written = {id(destination.array) for destination in (into or {}).values()}
        for a, old in before:
            assert id(a) in written or self.get(a).tobytes() == old, f"{name} wrote to an argument"
        return {field: self.get(a) for field, a in fields(REGISTRY[name], result).items()}

    def outputs(
        self, name: str, example: Example, into: Mapping[str, Out] | None = None, *, shift: int = 0,
        memory: Memory | None = None,
    ) -> Outputs:  # fmt: skip
        """The outputs for an example."""
        args = [self.put(a, shift) for a in example.args]
        options = {key: self.put(value, shift) for key, value in example.options.items()}
        return self.run(name, args, options, into, memory, example.args)

    def results(self, name: str, example: Example, *, fully: bool) -> Iterator[tuple[str, Outputs]]:  # noqa: ARG002
        """(in which way, outputs) of every way that may differ in bits; unless `fully`, of a few."""
        yield "", self.outputs(name, example)


class Kernels(Library):
    """The fused versions; `device` is a module such as tests/fused/real_cupy.py."""

    mode, kernels, flushes = "fused", True, True

    def __init__(self, device: Any, library: str) -> None:
        super().__init__(device.backend())
        self.device, self.library = device, library

    @property
    def names(self) -> list[str]:
        return sorted(name for name, op in REGISTRY.items() if op.versions(self.library))

    def put(self, value: Any, shift: int = 0) -> Any:
        if not isinstance(value, np.ndarray):
            return value
        if not shift or not value.flags.c_contiguous or not value.size:
            return self.device.on_device(value)
        memory = self.device.fresh((value.size + shift,), value.dtype)
        memory[shift:] = self.device.on_device(value.reshape(-1))
        return memory[shift:].reshape(*value.shape)

    def get(self, value: Any) -> Any:
        return self.device.off_device(value)

    def results(self, name: str, example: Example, *, fully: bool) -> Iterator[tuple[str, Outputs]]:  # noqa: ARG002
        for shift in (0, 1):
            yield f"{shift} off", self.outputs(name, example, shift=shift)


class Simulated(Kernels):
    """CUDA kernels under g++: threads in any order, rows split or not, in one launch or two."""

    flushes = False

    def results(self, name: str, example: Example, *, fully: bool) -> Iterator[tuple[str, Outputs]]:
        """Arrays off 16 bytes are read one by one, others by packs; rows are split as in a large array, or are not."""
        split, whole = {"splits": 3, "on_chip": False}, {"splits": 1}
        twice = ({}, "forward"), ({}, "shuffled")
        once = twice if fully or example_dtype(example) == np.float32 else twice[1:]
        yield from self._alike(name, example, "in packs", 0, *once)
        yield from self._alike(name, example, "one by one, split", 1, (split, "reverse"))
        if not fully or (example_dtype(example) == np.float64 and name not in WIDE):
            return  # float64 is cut as float32 is
        yield from self._alike(name, example, "in packs, split", 0, (split, "forward"), (split, "shuffled"))
        yield from self._alike(name, example, "one by one", 1, ({}, "reverse"))
        if name in ("batch_norm", "normalize_backward"):
            apart = {**whole, "on_chip": False}
            yield from self._alike(name, example, "in two launches or one", 0, (apart, "forward"), (whole, "forward"))
        if example_dtype(example) == np.float32:
            with self._flushing():
                yield FLUSHED, self.outputs(name, example)

    def _alike(
        self, name: str, example: Example, what: str, shift: int, *ways: tuple[Any, str]
    ) -> Iterator[tuple[str, Outputs]]:
        """The outputs of ways that give the same bits: grids with schedules of their threads."""
        found = list[Outputs]()
        for how, schedule in ways:
            with forced(**how):
                self.device.STATE.schedule = schedule
                found.append(self.outputs(name, example, shift=shift))
            assert_same_bits(found[-1], found[0], f"{name}, {example.label}, {what}, {schedule}")
        counters = importlib.import_module("bnengine.fused.cuda._load")._arrivals.values()
        assert not any(counter.get().any() for counter in counters), f"{name} left a counter that is not zero"
        yield what, found[0]

    @contextmanager
    def _flushing(self) -> Iterator[None]:
        self.device.STATE.flush = True
        yield
        self.device.STATE.flush = False


def example_dtype(example: Example) -> Any:
    """That of the first floating argument."""
    return next((a.dtype for a in example.args if a is not None and a.dtype.kind == "f"), None)


@contextmanager
def forced(splits: int = 0, on_chip: bool | None = None) -> Iterator[None]:
    """What launchers conclude from an array's shape is forced; everything else is theirs."""

    def sliced(_x: Any, _rows: int, channels: int, vector: int, **_: Any) -> tuple[int, int]:
        return -(-channels // launch.slice_width(vector)), splits

    launch = importlib.import_module("bnengine.fused.cuda._launch")
    with pytest.MonkeyPatch.context() as patched:
        for module in (importlib.import_module(f"bnengine.fused.cuda.{name}") for name in LAUNCHERS):
            if splits and hasattr(module, "flat_grid"):
                patched.setattr(module, "flat_grid", lambda *_args, **_options: (splits,))
            if splits and hasattr(module, "sliced_grid"):
                patched.setattr(module, "sliced_grid", sliced)
            if on_chip is not None and hasattr(module, "on_chip"):
                patched.setattr(module, "on_chip", lambda *_: on_chip)
        yield


class Native(Kernels):
    """Native kernels: the same bits for any threads, instructions, blocks, and as a replayed plan."""

    dtypes = FULL

    def results(self, name: str, example: Example, *, fully: bool) -> Iterator[tuple[str, Outputs]]:
        """Small arrays are one block, large ones several; `fully` also takes one thread for a replay."""
        threads.set(1)
        expected = self.outputs(name, example)
        for what, way in self.ways(name, (999,) if fully else (1, 999)).items():
            with way():
                assert_same_bits(self.outputs(name, example), expected, f"{name}, {example.label}, {what}")
        self._replayed(name, example, expected, (nullcontext, three_threads) if fully else (three_threads,))
        yield "", expected

    def ways(self, name: str, counts: Sequence[int]) -> dict[str, Callable[[], Any]]:
        """What changes no bit, among it these counts of blocks, and five of them by three threads."""
        found = {f"{n} blocks": lambda n=n: blocks_of(n) for n in counts}
        found |= {isa: lambda isa=isa: instructions(isa) for isa in instruction_sets()[1:]}
        past_caches = {"past the caches": lambda: past(0)} if "norm" in name else {}
        return found | past_caches | {"5 blocks, three threads": five_by_three}

    def _replayed(self, name: str, example: Example, expected: Outputs, ways: Any) -> None:
        """Recorded and replayed, whatever scratch held before."""
        what, arena = f"{name}, {example.label}, replayed", Arena("fused")
        arrays = [a for a in (*example.args, *example.options.values()) if isinstance(a, np.ndarray)]
        with arena.recording(arrays) as plan, using("fused"):
            result = REGISTRY[name](*example.args, memory=arena, **example.options)
        got = fields(REGISTRY[name], result)
        assert_same_bits(got, expected, what)
        if any(a is not None and a.dtype.itemsize == 2 for a in got.values()):
            return  # NumPy rounds to 16 bits, so that the plan is not native
        replay = replayer(plan)
        for way in ways:
            with way():
                _load.library().bnengine_fill_scratch(255)
                poison(arena)
                replay()
                assert_same_bits(got, expected, what)


@contextmanager
def three_threads() -> Iterator[None]:
    threads.set(3)
    yield
    threads.set(1)


@contextmanager
def blocks_of(count: int) -> Iterator[None]:
    """Every launch that is cut is cut into `count` blocks."""

    def recut(kernel: NativeKernel) -> None:
        if kernel.width > 1:
            object.__setattr__(kernel, "blocks", count)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(NativeKernel, "__post_init__", recut)
        _launch.kernel.cache_clear()
        yield
    _launch.kernel.cache_clear()


@contextmanager
def five_by_three() -> Iterator[None]:
    with blocks_of(5), three_threads():
        yield


@contextmanager
def past(size: int) -> Iterator[None]:
    """Outputs of this size are stored past the caches."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(importlib.import_module("bnengine.fused.cpu.batch_norm"), "PAST", size)
        yield


def instruction_sets() -> list[str]:
    """Those that the library has and this processor runs, the most capable first."""
    library = _load.library()
    return [name for name in _load.sets(library) if library.bnengine_isa_runs(name.encode())]


@contextmanager
def instructions(isa: str) -> Iterator[None]:
    """Kernels use this instruction set."""
    before = _load.isa()
    try:
        _choose(isa)
        yield
    finally:
        _choose(before)


def _choose(isa: str) -> None:
    _load.done(_load.library().bnengine_choose_isa(isa.encode()), isa)
    _load.kernel.cache_clear()
    native._alone.cache_clear()


def assert_same_bits(got: Outputs, expected: Outputs, what: str) -> None:
    """Every output has the same bytes, or is absent in both; a NaN is a NaN."""
    assert got.keys() == expected.keys(), what
    for field, value in expected.items():
        other = got[field]
        assert other is value is None or bits(other) == bits(value), f"{what}, {field}"
