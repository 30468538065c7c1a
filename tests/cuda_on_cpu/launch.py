"""Kernels compiled for the CPU, each file once, and memory between guard zones."""

import functools
import shutil
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np

from tests.cuda_on_cpu.module import CpuKernel, CpuModule
from tests.cuda_on_cpu.redzones import forbid
from tests.cuda_on_cpu.source import kernel_source
from tests.support import missing

BLOCK = (32, 8)
GUARD = 512  # bytes before and after an array that nothing may touch
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
    """Begin to compile these instances of files, `at_once` files at a time, while other tests run."""
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
    """Counters of blocks: zero before a launch, and zero again after it."""
    return np.zeros(count, np.uint32)
