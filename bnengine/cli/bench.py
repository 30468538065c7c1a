"""`bnengine bench`: how fast this machine trains, beside PyTorch and JAX."""

import sys
from typing import Any, Literal

import click

from ..arrays.backend import get_backend
from ..errors import InputError
from ..lab.bench import Report, bench
from ..lab.bench.cpu import bench_cpu, plot
from ..lab.bench.workloads import check_precisions, chosen
from ..storage.codec import dumps
from . import bench_cpu as cpu_tables
from .tables import print_table

SECONDS = 600.0
KERNELS = ("op", "dtype", "time", "rate", "share", "PyTorch / ours")
STEPS = ("workload", "precision", "step", "time", "floor", "host", "launches", "times as long", "loss at step 20")


@click.command("bench")
@click.option("--backend", metavar="NAME", help="auto, numpy, cupy, cupy:1.  [auto]")
@click.option(
    "--only", type=click.Choice(["kernels", "steps", "predictions"]),
    help="Only single ops, only whole training steps, or on a CPU only predictions.",
)  # fmt: skip
@click.option("--workload", "workloads", multiple=True, metavar="NAME", help="Only this network (repeatable).")
@click.option("--precision", "precisions", multiple=True, metavar="NAME", help="Only highest, tf32 or bfloat16.")
@click.option("--without-peers", is_flag=True, help="Leave PyTorch and JAX out, even where they are installed.")
@click.option("--quick", is_flag=True, help="Fewer and shorter rounds.")
@click.option(
    "--deadline", type=click.FloatRange(min=0, min_open=True), default=SECONDS, metavar="SECONDS",
    help="When to be done; what is then left is listed as not run.  [600]",
)  # fmt: skip
@click.option(
    "--scale", type=click.IntRange(min=1), default=1, metavar="N",
    help="Divide the rows of single ops by this, where memory is small; they then have no targets.  [1]",
)  # fmt: skip
@click.option(
    "--threads", type=click.IntRange(min=1), metavar="N",
    help="On a CPU, of everybody.  [the cores that this process may use]",
)  # fmt: skip
@click.option(
    "--plot", "picture", metavar="FILE",
    help="On a CPU, draw the time of a step over width, depth and batch, which takes more time; needs matplotlib.",
)  # fmt: skip
@click.option("--json", "path", metavar="FILE", help="Write all figures there after every part; - prints them instead.")
def command(
    backend: str | None,
    only: Literal["kernels", "steps", "predictions"] | None,
    workloads: tuple[str, ...],
    precisions: tuple[str, ...],
    without_peers: bool,
    quick: bool,
    deadline: float,
    scale: int,
    threads: int | None,
    picture: str | None,
    path: str | None,
) -> None:
    """Time single ops and whole training steps on this machine, with PyTorch and JAX beside them in turns if installed.

    On a GPU each op has its share of the copy bandwidth measured in the same run, and steps are run op by op, replayed,
    and replayed as one graph, beside PyTorch. Ratios are theirs over ours: above 1, ours is faster.

    On a CPU everybody is a process of its own, with the same number of threads; predictions are timed too, and rounds
    in which other programs took the cores are repeated. Ratios are ours over theirs, or over the floor: below 1, ours
    is faster.

    A peer whose loss does not agree with ours up to step 20 is void, with the reason.

    \b
      bnengine bench
      bnengine bench --quick --only steps --workload 64-100-100-10
      bnengine bench --json figures.json --plot figures.png --deadline 500
    """
    check_precisions(precisions)
    networks = chosen(workloads)
    say = _say if sys.stderr.isatty() and path != "-" else None
    if get_backend(backend).name == "numpy":
        if any(name != "highest" for name in precisions):
            raise InputError("bench: less precision than float32 is for a GPU; leave --precision out")
        if picture is not None:
            plot.check()
            if only not in (None, "steps"):
                raise InputError(f"bench: --plot draws training steps, which --only {only} leaves out")
        measured = bench_cpu(
            only=only, workloads=networks, peers=not without_peers, quick=quick, deadline=deadline, threads=threads,
            path=None if path == "-" else path, sweep=picture is not None, scale=scale, say=say,
        ).to_json()  # fmt: skip
        if path == "-":
            click.echo(dumps(measured))
        else:
            cpu_tables.show(measured)
        if picture is not None:
            plot.draw(measured, picture)
        return
    if threads is not None or picture is not None or only == "predictions":
        raise InputError("bench: --threads, --plot and --only predictions are for a CPU; add --backend numpy")
    found = bench(
        backend,
        only=only,
        workloads=networks,
        precisions=precisions,
        peers=not without_peers,
        quick=quick,
        deadline=deadline,
        path=None if path == "-" else path,
        scale=scale,
        say=say,
    )
    if path == "-":
        click.echo(dumps(found.to_json()))
    else:
        _show(found)


def _say(part: str) -> None:
    click.echo(f"bench: {part}", err=True)


def _show(found: Report) -> None:
    """The machine, a table of ops, one of steps, the targets, what was not run."""
    report = found.to_json()
    click.echo(_machine(report))
    for warning in report["environment"]["warnings"]:
        click.echo(f"warning: {warning}")
    rows = report["rows"]
    for kind, header, line in (("kernel", KERNELS, _kernel), ("step", STEPS, _step)):
        lines = [line(row) for row in rows if row["kind"] == kind]
        if lines:
            click.echo("")
            print_table(header, lines, lambda line: "void" in line)
    _voids(rows)
    _targets(report["targets"])
    if report["not_run"]:
        click.echo("\nnot run")
        for left in report["not_run"]:
            click.echo(f"  {left['what']}: {left['why']}")


def _machine(report: dict[str, Any]) -> str:
    has = report["environment"]
    device = has["device"] or has["processor"] or has["machine"]
    driver = f", CUDA driver {has['driver']}" if has["driver"] else ""
    torch = f", PyTorch {has['peers']['torch']}" if has["peers"].get("torch") else ""
    lines = [f"bnengine {has['bnengine']}, Python {has['python']}, {has['backend']}{torch}"]
    lines.append(f"{has['measured_on']}: {device}{driver}")
    if report["copy_bandwidth"]:
        rate = report["copy_bandwidth"]["bytes_per_second"]
        products = [f"{_scaled(flops, 'FLOP/s')} ({p})" for p, flops in report["gemm_rate"]["flops"].items() if flops]
        lines.append(
            f"copies {_scaled(rate, 'B/s')}; multiplies {', '.join(products) or 'at no rate that was measured'}"
        )
    return "\n".join(lines)


def _kernel(row: dict[str, Any]) -> tuple[str, ...]:
    if row["void"]:
        return row["what"], row["variant"], "void", "", "", ""
    unit = "B/s" if row["unit"] == "bytes" else "FLOP/s"
    share = "" if row["share"] is None else f"{row['share']:.0%}"
    return row["what"], row["variant"], _time(row["seconds"]), _scaled(row["rate"], unit), share, _ratio(row)


def _step(row: dict[str, Any]) -> tuple[str, ...]:
    launches = "" if row["launches"] is None else str(row["launches"])
    loss = f"{row['loss']['loss']:.6g}" if row["loss"] else ""
    times = (_time(row["seconds"]), _scaled(row["floor_seconds"], "s"), _time(row["host_seconds"]))
    told = ("void", "", "", launches, "", loss) if row["void"] else (*times, launches, _ratio(row), loss)
    return row["what"], row["variant"], row["name"], *told


def _voids(rows: list[dict[str, Any]]) -> None:
    """The reasons of void rows, in full."""
    reasons = [(f"{row['what']}, {row['variant']}, {row['name']}", row["void"]) for row in rows if row["void"]]
    beside = [row for row in rows if row.get("peer") and row["peer"]["void"]]
    reasons += [(f"{row['what']}, {row['variant']}, {row['peer']['name']}", row["peer"]["void"]) for row in beside]
    if reasons:
        click.echo("\nvoid")
        for what, why in reasons:
            click.echo(f"  {what}: {why}")


def _targets(targets: list[dict[str, Any]]) -> None:
    """Every target that has a figure; how many have none."""
    measured = [target for target in targets if target["reached"] is not None]
    if measured:
        click.echo("\ntargets")
    for target in measured:
        aim, had = _figure(target, target["value"]), _figure(target, target["measured"])
        by = f", {target['by']}" if target["by"] and target["figure"] == "ratio" else ""
        reached = "reached" if target["reached"] else "NOT reached"
        click.echo(
            f"  {reached}: {target['what']}, {target['variant']}{by}: {target['figure'].replace('_seconds', ' time')} "
            f"{had}, {target['sense']} {aim}"
        )
    if len(measured) < len(targets):
        click.echo(f"\n{len(targets) - len(measured)} of {len(targets)} targets (for an H200) were not measured")


def _figure(target: dict[str, Any], value: float) -> str:
    if target["figure"] == "share":
        return f"{value:.0%}"
    return f"{value:.2f}" if target["figure"] == "ratio" else _scaled(value, "s")


def _ratio(row: dict[str, Any]) -> str:
    ratio = row["ratio"]
    return "" if ratio is None else f"{ratio['median']:.2f} ({ratio['low']:.2f} to {ratio['high']:.2f})"


def _time(seconds: dict[str, Any] | None) -> str:
    return "" if seconds is None else _scaled(seconds["median"], "s")


PREFIXES = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"), (1.0, ""), (1e-3, "m"), (1e-6, "µ"), (1e-9, "n"))


def _scaled(value: float | None, unit: str) -> str:
    """Such as 4.21 TB/s, 12.3 µs."""
    if not value:
        return f"0 {unit}" if value is not None else ""
    size, prefix = next((p for p in PREFIXES if abs(value) >= p[0]), PREFIXES[-1])
    return f"{value / size:.3g} {prefix}{unit}"
