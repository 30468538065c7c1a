"""The benchmarks from beginning to end, the most important cases first."""

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from math import inf
from pathlib import Path
from time import perf_counter
from typing import Any

from ...arrays.backend import Backend, get_backend
from ...errors import InputError
from ...runtime import cores
from .cases import PEERS, Case, cpu_cases, device_cases
from .machine import Machine, cpu_environment, environment
from .measure import copies_and_products, measure, measure_on_device
from .processes import WORKER, Processes
from .report import CpuReport, NotRun, Rates, Report, cpu_rows, device_rows
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
    until, chosen = Deadline(inf if deadline is None else deadline, clock), get_backend(backend)
    if chosen.name not in ("numpy", "cupy"):
        raise InputError(f"bench: the backend must be numpy or cupy, got {chosen.name!r}; give one of them")
    if chosen.on_gpu:
        if threads is not None or sweep or only == "predictions":
            raise InputError("bench: --threads, --plot and --only predictions are for a CPU; add --backend numpy")
        machine = Machine(chosen, clock)
        torch, why = torch_version() if peers else (None, "it was left out")
        cases = device_cases(torch is not None, only, workloads, precisions, scale)
        report = Report(environment(machine, torch), path, pending=cases)
        if torch is None:
            report.not_run.append(NotRun("comparison with PyTorch", why))
        report.write()
        say("copy bandwidth, rate of products")
        report.copy_bandwidth, report.gemm_rate = copies_and_products(machine, until, quick)
        rates = Rates(report.copy_bandwidth["bytes_per_second"], report.gemm_rate["flops"], machine.cache_bytes)
        measured = partial(measure_on_device, machine=machine, until=until, quick=quick)
        _run(report, until, say, lambda case, share: device_rows(case, measured(case, share=share), rates))
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
    report = CpuReport(cpu_environment(threads), path, pending=cases)
    with (
        tempfile.TemporaryDirectory(prefix="bnengine-bench-") as folder,
        Processes(threads, Path(folder), command) as processes,
    ):
        measured = partial(measure, processes=processes, until=until, quick=quick)
        _run(report, until, say, lambda case, share: cpu_rows(case, measured(case, share=share), report.environment))
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
