"""The device that is measured, its clocks, and what a reader must know of the machine."""

import os
import time
from collections.abc import Callable
from time import perf_counter
from typing import Any

from ... import fused
from ...arrays.backend import Backend, available_backends
from ...runtime import cores
from .. import environment as facts
from ..verify.certificate import environment as libraries
from . import counters
from .timing import Clock

THREADS = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS")


class Machine:
    """A backend's device with its clock."""

    def __init__(self, backend: Backend, clock: Clock = perf_counter) -> None:
        self.backend, self.clock, self.on_gpu = backend, clock, backend.on_gpu
        self.timing = fused.backend_feature(backend.name, "timing")  # the device's clock and counters; None on a CPU
        # Bytes of the device's last cache; None where it is not reported.
        self.cache_bytes: int | None = self.timing.cache_bytes(backend.device) if self.timing else None

    def seconds(self, work: Callable[[], object]) -> float:
        """Time `work` by events on a GPU, by the clock on a CPU."""
        return float(self.timing.seconds(work)) if self.timing else self.passed(work)

    def passed(self, work: Callable[[], object], done: bool = True) -> float:
        """Time `work` by the clock until an idle device has done all of it; without `done`, until the host has."""
        self.backend.synchronize()
        began = self.clock()
        work()
        handed_over = self.clock() - began
        self.backend.synchronize()
        return self.clock() - began if done else handed_over


def environment(machine: Machine, torch: str | None) -> dict[str, Any]:
    """Return the machine of a run in this process, its libraries, and what distorts a measurement."""
    return {
        **_everywhere([machine.backend], available_backends()),
        "backend": machine.backend.name,
        "threads": {name: os.environ[name] for name in THREADS if name in os.environ},
        "cache_bytes": machine.cache_bytes,
        "peers": {"torch": torch},
        "warnings": facts.warnings(),
    }


def cpu_environment(threads: int) -> dict[str, Any]:
    """Return the machine, versions and date of a run in processes on a CPU."""
    native = fused.native()
    return {
        **_everywhere([], []),
        "date": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "usable_cores": cores.cores(),
        "threads": threads,
        "isa": None if native.available() else native.isa(),
        "kernels": native.available() or "built",
        "peers": {name: facts.version(name) for name in ("torch", "jax")},
        "disturbances": "seen by /proc/stat" if counters.read() else "seen by involuntary switches",
    }


def _everywhere(backends: list[Backend], reports: Any) -> dict[str, Any]:
    return {
        **libraries(backends, reports),
        "measured_on": "GPU" if any(backend.on_gpu for backend in backends) else "CPU",
        "processor": facts.processor(),
        "cores": os.cpu_count(),
        "commit": facts.commit(),
    }
