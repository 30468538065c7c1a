"""The benchmarks from beginning to end, in order of value."""

from collections.abc import Callable, Iterator, Sequence
from time import perf_counter
from typing import Any, Literal, NamedTuple

from ...arrays.backend import Backend, get_backend
from ...network.precision import PrecisionName
from . import torch_peer
from .kernel_rows import row_of
from .kernels import Kernel, kernels
from .machine import Machine, Rates, copy_bandwidth, environment, gemm_rates
from .report import NotRun, Report
from .step_rows import rows_of
from .timing import Clock, Deadline, first_line
from .workloads import WORKLOADS, Workload

Say = Callable[[str], None]
SECONDS = 60.0  # that one kernel may take, at most


class Part(NamedTuple):
    """A kernel, or a workload at one precision."""

    what: str
    kernel: Kernel | None = None
    workload: Workload | None = None
    precision: PrecisionName = "highest"

    @property
    def weight(self) -> float:
        """Its share of the time: compiling peers takes most of it."""
        return 1.0 if self.kernel is not None else 12.0


def bench(
    backend: str | Backend | None = None,
    *,
    only: Literal["kernels", "steps"] | None = None,
    workloads: Sequence[Workload] | None = None,
    precisions: Sequence[str] = (),
    peers: bool = True,
    quick: bool = False,
    deadline: float | None = None,
    path: str | None = None,
    scale: int = 1,
    say: Say | None = None,
    clock: Clock = perf_counter,
) -> Report:
    """Time kernels and whole training steps on this machine, PyTorch beside them in turns where it is installed.

    `backend`: as for `get_backend`; without a GPU there are no kernels, and steps run on NumPy. `only` one of both;
    `workloads`, `precisions`: those only. `peers` False leaves PyTorch out. `quick`: fewer and shorter rounds.
    `deadline`: seconds in all; what is then left is not run, and says so. `path`: a file that holds what there is after
    every part. `scale` divides the kernels' rows. InputError for a backend, or a path, that cannot be used.
    """
    say, until = say or (lambda _part: None), Deadline(deadline, clock)
    machine = Machine(get_backend(backend), clock)
    torch, why = torch_peer.load(machine.on_gpu) if peers else (None, "it was left out")
    packages = [("torch", None if torch is None else str(torch.__version__))]
    report = Report(environment(machine, packages), path=path)
    if torch is None:
        report.not_run.append(NotRun("PyTorch beside ours", why))
    parts = list(_parts(machine, report, only, workloads, precisions, scale))
    report.pending = [part.what for part in parts]
    report.write()
    say("copy bandwidth, rate of products")
    report.copy_bandwidth = copy_bandwidth(machine, quick, until.part(0.1))
    report.gemm_rate = gemm_rates(machine, quick, until.part(0.1))
    report.write()
    _run(machine, report, parts, torch, until, quick, say)
    return report


def _run(
    machine: Machine, report: Report, parts: list[Part], torch: Any, until: Deadline, quick: bool, say: Say
) -> None:
    assert report.copy_bandwidth is not None
    assert report.gemm_rate is not None
    rates = Rates(report.copy_bandwidth["bytes_per_second"], report.gemm_rate["flops"])
    for i, part in enumerate(parts):
        report.pending = [left.what for left in parts[i + 1 :]]
        if until.over:
            report.not_run.append(NotRun(part.what, "no time was left before the deadline"))
            continue
        say(part.what)
        share = part.weight / sum(left.weight for left in parts[i:])
        try:
            if part.kernel is not None:
                own = until.part(share, SECONDS)
                report.rows.append(row_of(machine, part.kernel, torch, rates, own, quick=quick))
            elif part.workload is not None:
                own = until.part(share)
                given = machine, part.workload, part.precision, torch, rates, own
                report.rows += rows_of(*given, until=until, quick=quick)
        except Exception as error:  # one part's failure is told, and the next part runs
            report.not_run.append(NotRun(part.what, f"it failed: {first_line(error)}"))
        report.write()
    report.write()


def _parts(
    machine: Machine,
    report: Report,
    only: str | None,
    workloads: Sequence[Workload] | None,
    precisions: Sequence[str],
    scale: int,
) -> Iterator[Part]:
    """Kernels with a target, steps with one, other kernels, other steps; what cannot run here goes to the report."""
    ops, steps = list[Kernel](), list[Part]()
    if only != "steps":
        if machine.on_gpu:
            ops = list(kernels(scale))
        else:
            report.not_run.append(NotRun("kernels", f"there is no GPU to run them on: {machine.backend.why}"))
    if only != "kernels":
        steps = list(_steps(machine, report, WORKLOADS if workloads is None else workloads, precisions))
    aimed = [part for part in steps if not _extra(part)]
    yield from (Part(_name(kernel), kernel) for kernel in ops if kernel.targeted)
    yield from aimed
    yield from (Part(_name(kernel), kernel) for kernel in ops if not kernel.targeted)
    yield from (part for part in steps if _extra(part))


def _steps(
    machine: Machine, report: Report, workloads: Sequence[Workload], precisions: Sequence[str]
) -> Iterator[Part]:
    for workload in workloads:
        for precision in workload.precisions:
            what = f"steps of {workload.name}, {precision}"
            if precisions and precision not in precisions:
                continue
            if machine.on_gpu or precision == "highest":
                yield Part(what, workload=workload, precision=precision)
            else:
                report.not_run.append(NotRun(what, "less precision than float32 is for a GPU"))


def _extra(part: Part) -> bool:
    """Whether a part has no target."""
    return part.workload is not None and part.precision == "highest" and len(part.workload.precisions) > 1


def _name(kernel: Kernel) -> str:
    return f"{kernel.what}, {kernel.variant}"
