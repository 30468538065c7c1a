"""The benchmarks from beginning to end, the most important cases first."""

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

from ... import fused
from ..._version import __version__
from ...arrays.backend import Backend, get_backend
from ...errors import InputError
from ...runtime import cores
from .. import environment as facts
from . import counters
from .cases import PEERS, Case, cpu_cases, device_cases
from .cpu_rows import cpu_rows
from .device import measure_on_device
from .machine import Machine, Rates, copy_bandwidth, environment, gemm_rates
from .measure import measure, paced
from .processes import WORKER, Processes
from .report import CpuReport, NotRun, Report
from .timing import Clock, Deadline, first_line
from .workloads import WORKLOADS, Workload

Say = Callable[[str], None]
Row = dict[str, Any]


def bench(
    backend: str | Backend | None = None,
    *,
    only: str | None = None,
    workloads: Sequence[Workload] = WORKLOADS,
    precisions: Sequence[str] = (),
    peers: bool = True,
    quick: bool = False,
    deadline: float | None = None,
    threads: int | None = None,
    path: str | None = None,
    sweep: bool = False,
    scale: int = 1,
    say: Say = lambda _case: None,
    clock: Clock = perf_counter,
    command: Sequence[str] = WORKER,
) -> Report:
    """Time single ops, training steps and predictions, in turns with other frameworks where they are installed.

    Args:
        backend: as for `get_backend`. On NumPy every contender is a process; on a GPU all are in this one.
        only: "kernels" (single ops), "steps", or on a CPU "predictions".
        workloads: the networks.
        precisions: of products on a GPU; an empty sequence selects all.
        peers: whether PyTorch, and on a CPU JAX, take part.
        quick: fewer and shorter rounds.
        deadline: seconds in all; what is left then is not run, and the report says so.
        threads: of every contender on a CPU, by default `runtime.cores.default`.
        path: a JSON file that is replaced after every case.
        sweep: adds steps of other widths, depths and batches on a CPU, for the plot.
        scale: divides the rows of single ops.
        say: is called with the name of every case that begins.
        command: starts a worker on a CPU, with its role as the last argument.

    Raises:
        InputError: an option does not suit the device, nothing is left to measure, or the path cannot be written.
    """
    until, chosen = Deadline(deadline, clock), get_backend(backend)
    if chosen.name != "numpy":
        if threads is not None or sweep or only == "predictions":
            raise InputError("bench: --threads, --plot and --only predictions are for a CPU; add --backend numpy")
        machine = Machine(chosen, clock)
        torch, why = torch_version() if peers else (None, "it was left out")
        cases = device_cases(machine.best, torch is not None, only, workloads, precisions, scale)
        report = Report(environment(machine, torch), path, pending=cases)
        if torch is None:
            report.not_run.append(NotRun("comparison with PyTorch", why))
        _on_device(report, machine, until, quick, say)
        return report
    if any(name != "highest" for name in precisions):
        raise InputError("bench: less precision than float32 is for a GPU; leave --precision out")
    if threads is not None and threads > cores.cores():
        raise InputError(f"bench: --threads {threads}, but this process may use {cores.cores()} cores; give fewer")
    threads = threads or min(cores.default(), cores.cores())
    cases = cpu_cases(only=only, workloads=workloads, sweep=sweep, quick=quick, scale=scale)
    if not peers:
        cases = [replace(case, roles=tuple(role for role in case.roles if role not in PEERS)) for case in cases]
    if not cases:
        names = ", ".join(workload.name for workload in workloads)
        raise InputError(f"bench: there are no {only} of {names}; name other workloads")
    report = CpuReport(about(threads), path, pending=cases)
    _in_processes(report, threads, until, quick, say, command)
    return report


def torch_version() -> tuple[str | None, str]:
    """Return (PyTorch's version, "") if it computes on a GPU here, else (None, the reason)."""
    try:
        import torch
    except Exception as error:  # a broken installation raises anything
        return None, f"PyTorch is not installed ({type(error).__name__})"
    if not torch.cuda.is_available():
        return None, f"PyTorch {torch.__version__} sees no CUDA device"
    return str(torch.__version__), ""


def _on_device(report: Report, machine: Machine, until: Deadline, quick: bool, say: Say) -> None:
    report.write()
    say("copy bandwidth, rate of products")
    report.copy_bandwidth = copy_bandwidth(machine, quick, until.part(0.1))
    report.gemm_rate = gemm_rates(machine, quick, until.part(0.1))
    rates = Rates(report.copy_bandwidth["bytes_per_second"], report.gemm_rate["flops"])
    _run(report, until, say, lambda case, share: measure_on_device(case, machine, rates, share, until, quick))


def _in_processes(report: Report, threads: int, until: Deadline, quick: bool, say: Say, command: Sequence[str]) -> None:
    with (
        tempfile.TemporaryDirectory(prefix="bnengine-bench-") as folder,
        Processes(threads, Path(folder), command) as processes,
    ):

        def rows(case: Case, share: float) -> list[Row]:
            return cpu_rows(case, measure(case, processes, share, until, paced(case, quick)), report.environment)

        _run(report, until, say, rows)


def _run(report: Report, until: Deadline, say: Say, rows: Callable[[Case, float], list[Row]]) -> None:
    """Measure the pending cases, each with its share of the time left; a case that fails does not stop the next."""
    report.write()
    cases = report.pending
    for i, case in enumerate(cases):
        report.pending = cases[i + 1 :]
        if until.over:
            report.skip(case, "no time was left before the deadline")
            continue
        say(case.name)
        share = case.weight / sum(left.weight for left in cases[i:])
        try:
            report.rows += rows(case, share)
        except Exception as error:  # no memory, no place for files: another case may do
            report.skip(case, f"it failed: {first_line(error)}")
        report.write()
    report.write()


def about(threads: int) -> dict[str, Any]:
    """Return the machine, versions, commit and date of a run on a CPU."""
    native = fused.native()
    return {
        "bnengine": __version__,
        "commit": facts.commit(),
        "date": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "measured_on": "CPU",
        "processor": facts.processor(),
        "machine": platform.machine(),
        "cores": os.cpu_count(),
        "usable_cores": cores.cores(),
        "threads": threads,
        "isa": None if native.available() else native.isa(),
        "kernels": native.available() or "built",
        "python": platform.python_version(),
        "numpy": np.__version__,
        "peers": {name: facts.version(name) for name in ("torch", "jax")},
        "disturbances": "seen by /proc/stat" if counters.read() else "seen by involuntary switches",
    }
