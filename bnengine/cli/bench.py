"""`bnengine bench`: how fast this machine trains, compared with PyTorch and JAX."""

import sys
from typing import Literal

import click

from ..errors import InputError
from ..lab.bench import WORKLOADS, CpuReport, bench, plot
from ..lab.bench.workloads import PRECISIONS
from ..lab.explain.drawing import new_figure
from ..storage.codec import dumps
from .bench_tables import show_cpu, show_device

DEADLINE_S = 600.0


@click.command("bench")
@click.option("--backend", metavar="NAME", help="auto, numpy, cupy, cupy:1.  [auto]")
@click.option(
    "--only", type=click.Choice(["kernels", "steps", "predictions"]),
    help="Time only single ops, only training steps, or on a CPU only predictions.",
)  # fmt: skip
@click.option(
    "--workload", "names", multiple=True, type=click.Choice([workload.name for workload in WORKLOADS]),
    metavar="NAME", help="Time only this network (repeatable).",
)  # fmt: skip
@click.option(
    "--precision", "precisions", multiple=True, type=click.Choice(PRECISIONS),
    help="Time only this precision, on a GPU (repeatable).",
)  # fmt: skip
@click.option("--without-peers", is_flag=True, help="Leave PyTorch and JAX out, even where they are installed.")
@click.option("--quick", is_flag=True, help="Take fewer and shorter rounds.")
@click.option(
    "--deadline", type=click.FloatRange(min=0, min_open=True), default=DEADLINE_S, metavar="SECONDS",
    help="Finish by then; what is left is listed as not run.  [600]",
)  # fmt: skip
@click.option(
    "--scale", type=click.IntRange(min=1), default=1, metavar="N",
    help="Divide the rows of single ops by this where memory is small; they then have no targets.  [1]",
)  # fmt: skip
@click.option(
    "--threads", type=click.IntRange(min=1), metavar="N",
    help="Threads of every contender on a CPU.  [the cores that this process may use]",
)  # fmt: skip
@click.option(
    "--plot", "picture", metavar="FILE",
    help="On a CPU, draw the time of a step over width, depth and batch; takes longer and needs matplotlib.",
)  # fmt: skip
@click.option("--json", "path", metavar="FILE", help="Write all figures there after every part; - prints them instead.")
def command(
    backend: str | None,
    only: Literal["kernels", "steps", "predictions"] | None,
    names: tuple[str, ...],
    precisions: tuple[str, ...],
    without_peers: bool,
    quick: bool,
    deadline: float,
    scale: int,
    threads: int | None,
    picture: str | None,
    path: str | None,
) -> None:
    """Time single ops and training steps on this machine, in turns with PyTorch and JAX where they are installed.

    On a GPU each op has its share of the copy bandwidth measured in the same run. Steps run op by op, replayed, and
    replayed as one graph, in turns with PyTorch. Ratios are theirs over ours: above 1, ours is faster.

    On a CPU every contender is a process with the same number of threads. Predictions are timed too, and rounds that
    other programs disturb are repeated. Ratios are ours over theirs, or over the floor (the lower bound of the time):
    below 1, ours is faster.

    A peer whose loss differs from ours within 20 steps is void; the reason is printed.

    \b
      bnengine bench
      bnengine bench --quick --only steps --workload 64-100-100-10
      bnengine bench --json figures.json --plot figures.png --deadline 500
    """
    if picture is not None:
        new_figure(where=plot.NAME)  # an error now rather than after the run
        if only not in (None, "steps"):
            raise InputError(f"bench: --plot draws training steps, which --only {only} leaves out")
    known = {workload.name: workload for workload in WORKLOADS}
    report = bench(
        backend, only=only, workloads=tuple(known[name] for name in names or known), precisions=precisions,
        peers=not without_peers, quick=quick, deadline=deadline, threads=threads, path=None if path == "-" else path,
        sweep=picture is not None, scale=scale, say=_say if sys.stderr.isatty() and path != "-" else _say_nothing,
    )  # fmt: skip
    result = report.to_json()
    if path == "-":
        click.echo(dumps(result))
    elif isinstance(report, CpuReport):
        show_cpu(result)
    else:
        show_device(result)
    if picture is not None:
        plot.draw(result, picture)


def _say(case: str) -> None:
    click.echo(f"bench: {case}", err=True)


def _say_nothing(_case: str) -> None:
    pass
