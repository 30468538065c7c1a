"""`bnengine bench`: how fast this machine trains, beside PyTorch."""

import json
import sys
from typing import Any, Literal

import click

from ..bench import Report, bench
from ..bench.workloads import check_precisions, chosen
from .tables import print_table

SECONDS = 600.0
KERNELS = ("op", "dtype", "time", "rate", "share", "PyTorch / ours")
STEPS = ("workload", "precision", "step", "time", "floor", "host", "launches", "times as long", "loss at step 20")


@click.command("bench")
@click.option("--backend", metavar="NAME", help="auto, numpy, cupy, cupy:1.  [auto]")
@click.option("--only", type=click.Choice(["kernels", "steps"]), help="Only single ops, or only whole training steps.")
@click.option("--workload", "workloads", multiple=True, metavar="NAME", help="Only this network (repeatable).")
@click.option("--precision", "precisions", multiple=True, metavar="NAME", help="Only highest, tf32 or bfloat16.")
@click.option("--without-peers", is_flag=True, help="Leave PyTorch out, even where it is installed.")
@click.option("--quick", is_flag=True, help="Fewer and shorter rounds.")
@click.option(
    "--deadline", type=click.FloatRange(min=0, min_open=True), default=SECONDS, metavar="SECONDS",
    help="When to be done; what is then left is listed as not run.  [600]",
)  # fmt: skip
@click.option(
    "--scale", type=click.IntRange(min=1), default=1, metavar="N",
    help="Divide the rows of single ops by this, where memory is small; they then have no targets.  [1]",
)  # fmt: skip
@click.option("--json", "path", metavar="FILE", help="Write all figures there after every part; - prints them instead.")
def command(
    backend: str | None,
    only: Literal["kernels", "steps"] | None,
    workloads: tuple[str, ...],
    precisions: tuple[str, ...],
    without_peers: bool,
    quick: bool,
    deadline: float,
    scale: int,
    path: str | None,
) -> None:
    """Time single ops and whole training steps on this machine, with PyTorch beside them in turns if it is installed.

    On a GPU each op has its share of the copy bandwidth measured in the same run, and steps are run op by op, replayed,
    and replayed as one graph. A peer whose loss does not agree with ours up to step 20 is void, with the reason.
    Without a GPU the steps run on NumPy and PyTorch's CPU. Ratios are theirs over ours: above 1, ours is faster.

    \b
      bnengine bench
      bnengine bench --quick --only steps --workload 64-100-100-10
      bnengine bench --json figures.json --deadline 500
    """
    check_precisions(precisions)
    say = _say if sys.stderr.isatty() and path != "-" else None
    found = bench(
        backend,
        only=only,
        workloads=chosen(workloads),
        precisions=precisions,
        peers=not without_peers,
        quick=quick,
        deadline=deadline,
        path=None if path == "-" else path,
        scale=scale,
        say=say,
    )
    if path == "-":
        click.echo(json.dumps(found.to_json(), allow_nan=False))
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
