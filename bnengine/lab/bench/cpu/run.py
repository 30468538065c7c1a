"""The benchmarks of a CPU from beginning to end, in order of value."""

import importlib.metadata
import os
import platform
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

from .... import fused
from ...._version import __version__
from ....errors import InputError
from ....runtime import cores
from ..machine import commit, processor
from ..timing import Clock, Deadline, first_line
from ..workloads import WORKLOADS, Workload
from . import counters
from .cases import PEERS, Case, cases, checked_threads
from .measure import Measured, Pace, measure, paced
from .processes import WORKER, Crew
from .report import NO_TIME, CpuReport, rows, untimed

Say = Callable[[str], None]
PACKAGES = ("torch", "jax")


def bench_cpu(
    *,
    only: str | None = None,
    workloads: Sequence[Workload] | None = None,
    peers: bool = True,
    quick: bool = False,
    deadline: float | None = None,
    threads: int | None = None,
    path: str | None = None,
    sweep: bool = False,
    scale: int = 1,
    say: Say | None = None,
    clock: Clock = perf_counter,
    command: Sequence[str] = WORKER,
) -> CpuReport:
    """Time whole training steps, predictions and single ops on NumPy's arrays, PyTorch and JAX beside them.

    Each contender is a process of its own (`command` and its role), with so many `threads`, by default as many as
    `runtime.cores.default` says. `only`: "steps", "predictions" or "kernels"; `workloads`: those of these networks.
    `peers` False leaves the other frameworks out. `quick`: fewer and shorter rounds. `deadline`: seconds in all.
    `path`: a file that holds what there is after every case. `sweep`: steps of other widths, depths and batches too.
    `scale` divides the rows of single ops. InputError for more threads than cores, where nothing is left to
    measure, and for a path that cannot be written.
    """
    say, until = say or (lambda _case: None), Deadline(deadline, clock)
    number = checked_threads(threads or min(cores.default(), cores.cores()), cores.cores())
    chosen = WORKLOADS if workloads is None else workloads
    todo = cases(only=only, workloads=chosen, sweep=sweep, quick=quick, scale=scale)
    if not todo:
        raise InputError(f"bench: there are no {only} of {', '.join(one.name for one in chosen)}; ask for others")
    if not peers:
        todo = [without(case, PEERS) for case in todo]
    report = CpuReport(about(number), number, path)
    report.pending = todo
    report.write()
    with (
        tempfile.TemporaryDirectory(prefix="bnengine-bench-") as folder,
        Crew(number, Path(folder), command) as crew,
    ):
        for i, case in enumerate(todo):
            report.pending = todo[i + 1 :]
            if until.over:
                report.rows += untimed(case, NO_TIME, number, report.environment)
                continue
            say(case.name)
            share = case.weight / sum(left.weight for left in todo[i:])
            found = timed(case, crew, share, until, paced(case, quick))
            report.rows += rows(case, found, number, report.environment)
            report.write()
    report.write()
    return report


def timed(case: Case, crew: Crew, share: float, until: Deadline, pace: Pace) -> Measured:
    """What was measured; a case's failure is told in its rows, and the next one runs."""
    try:
        return measure(case, crew, share, until, pace)
    except Exception as error:  # no memory, no place for files: another case may do
        return Measured({}, dict.fromkeys(case.roles, f"it failed: {first_line(error)}"), {}, 0, 0)


def without(case: Case, roles: Sequence[str]) -> Case:
    """The case without these contenders."""
    return replace(case, roles=tuple(role for role in case.roles if role not in roles))


def about(count: int) -> dict[str, Any]:
    """The machine, versions, commit and date, as far as a figure is worth nothing without them."""
    native = fused.native()
    return {
        "bnengine": __version__,
        "commit": commit(),
        "date": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "measured_on": "CPU",
        "processor": processor(),
        "machine": platform.machine(),
        "cores": os.cpu_count(),
        "usable_cores": cores.cores(),
        "threads": count,
        "isa": None if native.available() else native.isa(),
        "kernels": native.available() or "built",
        "python": platform.python_version(),
        "numpy": np.__version__,
        "peers": {name: version(name) for name in PACKAGES},
        "disturbances": "seen by /proc/stat" if counters.read() else "seen by involuntary switches",
    }


def version(name: str) -> str | None:
    """Of an installed package, None if it is not."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None
