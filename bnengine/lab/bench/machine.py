"""The machine that is measured: its clocks, how fast it copies and multiplies."""

import os
from collections.abc import Callable, Mapping
from math import prod
from time import perf_counter
from typing import Any, Literal, NamedTuple

import numpy as np

from ... import ops
from ...arrays.backend import Backend, available_backends
from ...fused import backend_feature
from ...runtime.memory import Arena
from .. import environment as facts
from ..verify.certificate import environment as libraries
from .ops import normal_block
from .timing import Clock, Deadline, first_line, spread
from .workloads import PRECISIONS

THREADS = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS")
COPIED, QUICKLY_COPIED = 1 << 30, 256 << 20  # bytes of a buffer on a GPU
MULTIPLIED, QUICKLY_MULTIPLIED = 8192, 1024  # rows of a matrix on a GPU
ON_CPU = 4  # divides both on a CPU
Mode = Literal["eager", "replayed", "graph"]


class Rates(NamedTuple):
    """Measured bytes copied per second, and operations per second by precision."""

    bytes: float
    flops: Mapping[str, float | None]


class Machine:
    """A backend's device with its clock."""

    def __init__(self, backend: Backend, clock: Clock = perf_counter) -> None:
        self.backend, self.clock = backend, clock
        self.timing = backend_feature(backend.name, "timing")  # the device's own clock and counters; None on a CPU
        self.on_gpu = self.timing is not None
        ways: dict[Any, Mode] = {"graph": "graph", "one call": "replayed"}
        self.best: Mode = ways.get(backend_feature(backend.name, "REPLAYED_AS"), "eager")  # the best way to run steps
        self.label = "GPU" if self.on_gpu else "CPU"

    def seconds(self, work: Callable[[], object]) -> float:
        """Time `work` by events on a GPU, by the clock on a CPU."""
        if self.timing is not None:
            return float(self.timing.seconds(work))
        return self.handed_over(work)

    def through(self, work: Callable[[], object]) -> float:
        """Time `work` until the device has done all of it; the device is waited for once, at the end."""
        self.backend.synchronize()
        began = self.clock()
        work()
        self.backend.synchronize()
        return self.clock() - began

    def handed_over(self, work: Callable[[], object]) -> float:
        """Time how long the host takes to hand `work` to an idle device."""
        self.backend.synchronize()
        began = self.clock()
        work()
        passed = self.clock() - began
        self.backend.synchronize()
        return passed

    def held_bytes(self) -> int | None:
        """Return the bytes of arrays on the device; None on a CPU."""
        return None if self.timing is None else int(self.timing.held_bytes())

    @property
    def cache_bytes(self) -> int | None:
        """Bytes of the device's last cache; None where it is not reported."""
        return None if self.timing is None else self.timing.cache_bytes(self.backend.device)

    def random(self, shape: tuple[int, ...], dtype: str = "float32", seed: int = 0) -> Any:
        """Draw standard normal numbers: a block on the host, repeated on the device."""
        block, xp = self.backend.asarray(normal_block(prod(shape), seed), copy=True), self.backend.xp
        flat = xp.empty((prod(shape),), dtype=xp.float32, device=self.backend.device)
        for start in range(0, flat.shape[0], block.shape[0]):
            part = flat[start : start + block.shape[0]]
            part[...] = block[: part.shape[0]]
        return xp.astype(xp.reshape(flat, shape), numpy_dtype(dtype), copy=False)


def numpy_dtype(name: str) -> Any:
    """Return the dtype of this name; bfloat16 is that of ml_dtypes."""
    if name != "bfloat16":
        return np.dtype(name)
    import ml_dtypes

    return np.dtype(ml_dtypes.bfloat16)


def copy_bandwidth(machine: Machine, quick: bool = False, deadline: Deadline | None = None) -> dict[str, Any]:
    """Measure the bytes per second of a copy on the device; bytes read and bytes written both count."""
    size = (QUICKLY_COPIED if quick else COPIED) // (1 if machine.on_gpu else ON_CPU)
    xp, device = machine.backend.xp, machine.backend.device
    source, target = (xp.zeros((size // 4,), dtype=xp.float32, device=device) for _ in range(2))

    def copy() -> None:
        if machine.timing is not None:
            machine.timing.copy(source, target)
        else:
            target[...] = source

    rate, rounds = _rate(machine, copy, 2 * size, repeated=8, deadline=deadline)
    return {"bytes_per_second": rate, "buffer": size, "rounds": rounds}


def gemm_rates(machine: Machine, quick: bool = False, deadline: Deadline | None = None) -> dict[str, Any]:
    """Measure the operations per second of a large product in each precision, by the library that steps use.

    A precision that the device lacks has None; `errors` says why.
    """
    n = (QUICKLY_MULTIPLIED if quick else MULTIPLIED) // (1 if machine.on_gpu else ON_CPU)
    flops: dict[str, float | None] = dict.fromkeys(PRECISIONS)
    errors, rounds = dict[str, str](), 0
    for precision in PRECISIONS if machine.on_gpu else ("highest",):
        try:
            product = _product(machine, n, precision)
            flops[precision], rounds = _rate(machine, product, 2 * n**3, repeated=2, deadline=deadline)
        except Exception as error:  # only this precision is missing
            errors[precision] = first_line(error)
    return {"flops": flops, "n": n, "rounds": rounds, "errors": errors}


def _product(machine: Machine, n: int, precision: str) -> Callable[[], object]:
    dtype = "bfloat16" if precision == "bfloat16" else "float32"
    a, b = (machine.random((n, n), dtype, seed) for seed in (1, 2))
    if not machine.on_gpu:
        return lambda: machine.backend.xp.matmul(a, b)
    memory = Arena("fused")
    with memory.recording([a, b]) as plan:
        memory.begin()
        memory.run(ops.affine, a, b, precision="tf32" if precision == "tf32" else "highest")
    return plan.replay


def _rate(
    machine: Machine, work: Callable[[], object], amount: int, repeated: int, deadline: Deadline | None
) -> tuple[float, int]:
    """Return (amount / median seconds, rounds); the first round does not count."""

    def several() -> None:
        for _ in range(repeated):
            work()

    machine.seconds(several)
    rounds: list[float] = []
    while len(rounds) < 11 and not (rounds and deadline is not None and deadline.over):
        rounds.append(machine.seconds(several) / repeated)
    median = spread(rounds).median
    return (amount / median if median > 0 else float("inf")), len(rounds)


def environment(machine: Machine, torch: str | None) -> dict[str, Any]:
    """Return the machine, its libraries, the commit, and what distorts a measurement."""
    return {
        **libraries([machine.backend], available_backends()),
        "backend": machine.backend.name,
        "measured_on": machine.label,
        "processor": facts.processor(),
        "cores": os.cpu_count(),
        "threads": {name: os.environ[name] for name in THREADS if name in os.environ},
        "commit": facts.commit(),
        "cache_bytes": machine.cache_bytes,
        "peers": {"torch": torch},
        "warnings": facts.warnings(),
    }
