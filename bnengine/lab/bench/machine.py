"""The machine that is measured: what it is called, how fast it copies and multiplies, how time passes on it."""

import os
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from time import perf_counter
from typing import Any, Literal, NamedTuple

import numpy as np

from ... import ops
from ...arrays.backend import Backend, available_backends
from ...fused import backend_feature
from ...runtime.memory import Arena
from ..verify.certificate import environment as libraries
from .timing import Clock, Deadline, first_line, spread
from .workloads import PRECISIONS

DISTORTING = ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE")  # NumPy then runs with another BLAS kernel than it would choose
THREADS = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS")
COPIED, QUICKLY_COPIED = 1 << 30, 256 << 20  # bytes, of a buffer on a GPU
MULTIPLIED, QUICKLY_MULTIPLIED = 8192, 1024
BLOCK = 1 << 22  # random numbers that are drawn; more repeat them
ON_CPU = 4  # a CPU's buffer and matrix are smaller by this


Mode = Literal["eager", "replayed", "graph"]


class Rates(NamedTuple):
    """What was measured of the machine: bytes a second that it copies, operations a second, by precision."""

    bytes: float
    flops: Mapping[str, float | None]


class Machine:
    """The backend's device, with its clock."""

    def __init__(self, backend: Backend, clock: Clock = perf_counter) -> None:
        self.backend, self.clock = backend, clock
        self.timing = backend_feature(backend.name, "timing")  # the device's own clock and counters, None on a CPU
        self.on_gpu = self.timing is not None
        ways: dict[Any, Mode] = {"graph": "graph", "one call": "replayed"}
        self.best: Mode = ways.get(backend_feature(backend.name, "REPLAYED_AS"), "eager")  # how steps run at their best
        self.label = "GPU" if self.on_gpu else "CPU"

    def seconds(self, work: Callable[[], object]) -> float:
        """How long `work` takes: by events on a GPU, by the clock elsewhere."""
        if self.timing is not None:
            return float(self.timing.seconds(work))
        began = self.clock()
        work()
        return self.clock() - began

    def through(self, work: Callable[[], object]) -> float:
        """How long until all of `work` is done, the device being waited for once, at the end."""
        self.backend.synchronize()
        began = self.clock()
        work()
        self.backend.synchronize()
        return self.clock() - began

    def handed_over(self, work: Callable[[], object]) -> float:
        """How long the host takes to hand `work` to an idle device, which is not waited for."""
        self.backend.synchronize()
        began = self.clock()
        work()
        passed = self.clock() - began
        self.backend.synchronize()
        return passed

    def held_bytes(self) -> int | None:
        """Bytes of arrays on the device; None on a CPU."""
        return None if self.timing is None else int(self.timing.held_bytes())

    @property
    def cache_bytes(self) -> int | None:
        """Bytes of the device's last cache; None where it is not told."""
        return None if self.timing is None else self.timing.cache_bytes(self.backend.device)

    def random(self, shape: tuple[int, ...], dtype: str = "float32", seed: int = 0) -> Any:
        """Standard normal numbers: a block drawn on the host, repeated over the rest, which memory cannot tell."""
        rng = np.random.default_rng(seed)
        size = int(np.prod(shape))
        drawn = self.backend.asarray(rng.standard_normal(min(size, BLOCK), dtype=np.float32), copy=True)
        xp = self.backend.xp
        flat = xp.empty((size,), dtype=xp.float32, device=self.backend.device)
        for start in range(0, size, int(drawn.shape[0])):
            part = flat[start : start + int(drawn.shape[0])]
            part[...] = drawn[: int(part.shape[0])]
        return xp.astype(xp.reshape(flat, shape), numpy_dtype(dtype), copy=False)


def numpy_dtype(name: str) -> Any:
    """The dtype that arrays of this name have; bfloat16 is that of ml_dtypes."""
    if name != "bfloat16":
        return np.dtype(name)
    import ml_dtypes

    return np.dtype(ml_dtypes.bfloat16)


def copy_bandwidth(machine: Machine, quick: bool = False, deadline: Deadline | None = None) -> dict[str, Any]:
    """Bytes a second of a copy from array to array on the device: what is read and what is written, both counted."""
    size = QUICKLY_COPIED if quick else COPIED
    size //= 1 if machine.on_gpu else ON_CPU
    xp, device = machine.backend.xp, machine.backend.device
    source, target = (xp.zeros((size // 4,), dtype=xp.float32, device=device) for _ in range(2))

    def copy() -> None:
        if machine.timing is not None:
            machine.timing.copy(source, target)
        else:
            target[...] = source

    rate = _rates(machine, copy, 2 * size, repeated=8, deadline=deadline)
    return {"bytes_per_second": rate[0], "buffer": size, "rounds": rate[1]}


def gemm_rates(machine: Machine, quick: bool = False, deadline: Deadline | None = None) -> dict[str, Any]:
    """Operations a second of a large product, in each precision, by the library that the steps' products are made by.

    None for a precision that the device does not have; `errors` says why.
    """
    n = QUICKLY_MULTIPLIED if quick else MULTIPLIED
    n //= 1 if machine.on_gpu else ON_CPU
    flops: dict[str, float | None] = dict.fromkeys(PRECISIONS)
    errors, rounds = dict[str, str](), 0
    for precision in PRECISIONS if machine.on_gpu else ("highest",):
        try:
            product = _product(machine, n, precision)
            flops[precision], rounds = _rates(machine, product, 2 * n**3, repeated=2, deadline=deadline)
        except Exception as error:  # this precision's own; the others may do
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


def _rates(
    machine: Machine, work: Callable[[], object], amount: int, repeated: int, deadline: Deadline | None
) -> tuple[float, int]:
    """(amount / median seconds, rounds), each round so many repetitions, one unmeasured before."""

    def several() -> None:
        for _ in range(repeated):
            work()

    machine.seconds(several)
    found: list[float] = []
    while len(found) < 11 and not (found and deadline is not None and deadline.over):
        found.append(machine.seconds(several) / repeated)
    median = spread(found).median
    return (amount / median if median > 0 else float("inf")), len(found)


def environment(machine: Machine, packages: Sequence[tuple[str, str | None]] = ()) -> dict[str, Any]:
    """The machine, its libraries, the commit of a checkout, and what distorts a measurement."""
    found = libraries([machine.backend], available_backends())
    found["backend"], found["measured_on"] = machine.backend.name, machine.label
    found["processor"], found["cores"] = processor(), os.cpu_count()
    found["threads"] = {name: os.environ[name] for name in THREADS if name in os.environ}
    found["commit"], found["cache_bytes"] = commit(), machine.cache_bytes
    found["peers"] = dict(packages)
    found["warnings"] = [
        f"{name}={os.environ[name]} is set: NumPy's BLAS may run other kernels than this processor's own; unset it"
        for name in DISTORTING
        if name in os.environ
    ]
    return found


def commit() -> str | None:
    """The commit of the checkout that this package is in, with + if files were changed; None outside of one."""
    folder = Path(__file__).resolve().parents[3]
    if not (folder / ".git").exists():
        return None
    try:
        head = _git(folder, "rev-parse", "HEAD")
        return f"{head}+" if _git(folder, "status", "--porcelain", "--untracked-files=no") else head
    except (OSError, subprocess.SubprocessError):
        return None


def _git(folder: Path, *arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=folder, capture_output=True, text=True, check=True, timeout=10)
    return done.stdout.strip()


def processor() -> str | None:
    """The processor's name, where the system tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), None)
