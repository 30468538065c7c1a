"""The simulated device's kernels: the .cu files themselves, compiled by g++."""

import re
from types import SimpleNamespace
from typing import Any

import numpy as np

from bnengine.fused.cuda import _load
from tests.cuda_on_cpu.instances import INSTANCES
from tests.cuda_on_cpu.launch import module as compiled
from tests.cuda_on_cpu.module import CpuModule
from tests.fused import simulated_streams as streams
from tests.fused.signatures import bound
from tests.fused.simulated_arrays import ndarray

STATE = SimpleNamespace(schedule="forward", seed=0, flush=False, launches=[], model=None)
INSTANCE = re.compile(r"[\w:]+<(\w+), (\d+)")  # what it stores, and how many it reads at once
STORED = {"float": "float32", "double": "float64", "__half": "float16", "__nv_bfloat16": "bfloat16"}


class RawKernel:
    """A kernel that runs, checked and under the schedule of the moment."""

    def __init__(self, cpu: Any) -> None:
        self.cpu = cpu
        self.max_dynamic_shared_size_bytes = 32 << 10  # of 48 KiB, what the kernels' own arrays leave at least

    def __call__(self, *args: Any, **kwargs: Any) -> None:
        given = bound("RawKernel.__call__", args, kwargs).arguments
        grid, block, arguments = given["grid"], given["block"], given["args"]
        if not (isinstance(grid, tuple) and isinstance(block, tuple) and isinstance(arguments, tuple)):
            raise TypeError(f"{self.cpu.name}: grid, block and arguments are tuples")
        limits = zip((*grid, 1, 1), (2**31 - 1, 65535, 65535), strict=False)
        assert all(type(n) is int and 0 < n <= limit for n, limit in limits), f"{self.cpu.name}: a grid of {grid}"
        passed = [self._argument(i, a) for i, a in enumerate(arguments)]
        self._check_alignment(arguments)
        STATE.launches.append(self.cpu.name)
        shared = given.get("shared_mem", 0)
        assert shared <= self.max_dynamic_shared_size_bytes, f"{self.cpu.name}: {shared} bytes without a request"

        def run() -> None:
            how = {"schedule": STATE.schedule, "seed": STATE.seed, "flush": STATE.flush}
            self.cpu(grid, block, passed, shared_mem=shared, **how)
            for a in arguments:
                if isinstance(a, ndarray):
                    a.zone.check(self.cpu.name)

        streams.enqueue(run)

    def _check_alignment(self, arguments: tuple[Any, ...]) -> None:
        """Where 16 bytes are read at once, a GPU faults at other addresses; a CPU does not. The largest are read so."""
        found = INSTANCE.match(self.cpu.name)
        if found is None or found[2] == "1":
            return
        stored = [a for a in arguments if isinstance(a, ndarray) and a.dtype.name == STORED[found[1]]]
        largest = max((a.size for a in stored), default=0)
        masks = [a for a in arguments if isinstance(a, ndarray) and a.dtype == bool]
        for a, unit in ((a, width) for those, width in ((stored, 16), (masks, int(found[2]))) for a in those):
            if a.size == largest and a.held.ctypes.data % unit:
                raise AssertionError(f"{self.cpu.name}: an array at an address that is no multiple of {unit}")

    def _argument(self, i: int, given: Any) -> Any:
        """CuPy takes its own arrays and NumPy's scalars; None would be a kernel parameter at address 0."""
        if isinstance(given, ndarray):
            return given.held
        if not isinstance(given, np.generic):
            raise TypeError(f"{self.cpu.name}: argument {i} is a {type(given).__name__}; its size is left to chance")
        pointer = i < len(self.cpu.parameters) and self.cpu.parameters[i].pointer
        return None if pointer and given.dtype == np.uint64 and given == 0 else given


class RawModule:
    """Instances of kernels, compiled by g++."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        given = bound("RawModule", args, kwargs).arguments
        self.code, self.names = given["code"], given["name_expressions"]
        assert all(isinstance(o, str) for o in given["options"])

    def get_function(self, *args: Any, **kwargs: Any) -> RawKernel:
        name = bound("RawModule.get_function", args, kwargs).arguments["name"]
        if name not in self.names:
            raise KeyError(f"{name} is not one of the name expressions {self.names}")
        for file, instances in INSTANCES.items():  # compiled together, and for the proofs of the kernels too
            if name in instances and _load.source(file) == self.code:
                return RawKernel(compiled(file, instances)(name))
        return RawKernel(CpuModule(self.code, (name,)).get_function(name))
