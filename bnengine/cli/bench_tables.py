"""What `bnengine bench` prints: the machine, tables, what is void and why, targets, what was not run."""

from collections.abc import Iterable, Sequence
from typing import Any

import click

from ..metrics.tables import print_table

Row = dict[str, Any]
CPU = ("what", "ours", "references", "floor", "best peer", "", "ours / theirs", "ours / floor")
OPS = ("op", "dtype", "time", "rate", "share", "PyTorch / ours")
STEPS = ("workload", "precision", "step", "time", "floor", "host", "launches", "theirs / ours", "loss at step 20")
FIGURES = {"ratio_to_best_peer": "of the best peer's time", "ratio_to_floor": "of the floor"}
PREFIXES = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"), (1.0, ""), (1e-3, "m"), (1e-6, "µ"), (1e-9, "n"))
VOID = "void"


def show_cpu(rows: Sequence[Row]) -> None:
    """Print the rows of a run on a CPU."""
    has = rows[0]["environment"]
    peers = "".join(f", {name} {version}" for name, version in has["peers"].items() if version)
    kernels = f"instruction set {has['isa']}" if has["isa"] else f"no native kernels: {has['kernels']}"
    click.echo(f"bnengine {has['bnengine']}, Python {has['python']}, NumPy {has['numpy']}{peers}")
    cpu = has["processor"] or has["machine"]
    click.echo(f"CPU: {cpu}, {has['threads']} of {has['usable_cores']} cores, {kernels}\n")
    print_table(CPU, [_cpu_line(row) for row in rows], numbers=(1, 2, 3, 4, 6, 7), emphasize=_is_void)
    click.echo(f"\nrepeated, because other programs took the cores: {sum(row['disturbed'] for row in rows)} timings")
    if kept := sum(row["disturbed_kept"] for row in rows):
        click.echo(f"warning: {kept} timings stayed disturbed; repeat the run while the machine is idle")
    _list(VOID, (f"{row['name']}, {role}: {why}" for row in rows for role, why in row["void"].items()))
    targets = [(row, figure, aim) for row in rows for figure, aim in row["target"].items()]
    known = [(row, figure, aim) for row, figure, aim in targets if row["reached"][figure] is not None]
    _list(
        "targets",
        (f"{_reached(row['reached'][figure])}: {row['name']}: {row[figure]:.3g} {FIGURES[figure]}, at most {aim:.3g}"
         for row, figure, aim in known),
    )  # fmt: skip
    if len(known) < len(targets):
        click.echo(f"\n{len(targets) - len(known)} of {len(targets)} targets were not measured")


def show_device(report: dict[str, Any]) -> None:
    """Print the report of a run on a GPU."""
    _show_machine(report)
    rows = report["rows"]
    tables = (("kernel", OPS, _op_line, range(2, 6)), ("step", STEPS, _step_line, range(3, 9)))
    for kind, header, line, numbers in tables:
        if lines := [line(row) for row in rows if row["kind"] == kind]:
            click.echo("")
            print_table(header, lines, numbers=numbers, emphasize=_is_void)
    pairs = [(row, row["name"], row["void"]) for row in rows]
    pairs += [(row, row["peer"]["name"], row["peer"]["void"]) for row in rows if row.get("peer")]
    _list(VOID, (f"{row['what']}, {row['variant']}, {name}: {why}" for row, name, why in pairs if why))
    known = [target for target in report["targets"] if target["reached"] is not None]
    _list("targets", map(_target_line, known))
    if len(known) < len(report["targets"]):
        total = len(report["targets"])
        click.echo(f"\n{total - len(known)} of {total} targets (for an H200) were not measured")
    _list("not run", (f"{entry['what']}: {entry['why']}" for entry in report["not_run"]))


def _show_machine(report: dict[str, Any]) -> None:
    has = report["environment"]
    torch = f", PyTorch {has['peers']['torch']}" if has["peers"].get("torch") else ""
    click.echo(f"bnengine {has['bnengine']}, Python {has['python']}, {has['backend']}{torch}")
    driver = f", CUDA driver {has['driver']}" if has["driver"] else ""
    click.echo(f"{has['measured_on']}: {has['device'] or has['processor'] or has['machine']}{driver}")
    if report["copy_bandwidth"]:
        rate = scaled(report["copy_bandwidth"]["bytes_per_second"], "B/s")
        products = [f"{scaled(flops, 'FLOP/s')} ({p})" for p, flops in report["gemm_rate"]["flops"].items() if flops]
        click.echo(f"copies {rate}; multiplies {', '.join(products) or 'at an unknown rate'}")
    for warning in has["warnings"]:
        click.echo(f"warning: {warning}")


def _cpu_line(row: Row) -> tuple[str, ...]:
    best = row["best_peer"]
    times = (milliseconds(row[name]) for name in ("reference_ms", "floor_ms"))
    peer = ("", "") if best is None else (milliseconds(row["peers_ms"][best]), best)
    ratios = ("" if row[name] is None else f"{row[name]:.3f}" for name in FIGURES)
    return row["name"], VOID if row["ours_ms"] is None else milliseconds(row["ours_ms"]), *times, *peer, *ratios


def _op_line(row: Row) -> tuple[str, ...]:
    if row["void"]:
        return row["what"], row["variant"], VOID, "", "", ""
    share = "" if row["share"] is None else f"{row['share']:.0%}"
    rate = scaled(row["rate"], "B/s" if row["unit"] == "bytes" else "FLOP/s")
    return row["what"], row["variant"], _median(row["seconds"]), rate, share, _ratio(row)


def _step_line(row: Row) -> tuple[str, ...]:
    launches = "" if row["launches"] is None else str(row["launches"])
    loss = f"{row['loss']['loss']:.6g}" if row["loss"] else ""
    times = (_median(row["seconds"]), scaled(row["floor_seconds"], "s"), _median(row["host_seconds"]))
    cells = (VOID, "", "", launches, "") if row["void"] else (*times, launches, _ratio(row))
    return row["what"], row["variant"], row["name"], *cells, loss


def _target_line(target: dict[str, Any]) -> str:
    by = f", {target['by']}" if target["by"] and target["figure"] == "ratio" else ""
    what, figure = f"{target['what']}, {target['variant']}{by}", target["figure"]
    measured, aim = (
        f"{value:.0%}" if figure == "share" else f"{value:.2f}" if figure == "ratio" else scaled(value, "s")
        for value in (target["measured"], target["value"])
    )
    words = f"{figure.replace('_seconds', ' time')} {measured}, {target['sense']} {aim}"
    return f"{_reached(target['reached'])}: {what}: {words}"


def _list(heading: str, lines: Iterable[str]) -> None:
    for i, line in enumerate(lines):
        click.echo(f"  {line}" if i else f"\n{heading}\n  {line}")


def _is_void(line: Sequence[object]) -> bool:
    return VOID in map(str, line)


def _reached(reached: bool) -> str:
    return "reached" if reached else "MISSED"


def _ratio(row: Row) -> str:
    ratio = row["ratio"]
    return "" if ratio is None else f"{ratio['median']:.2f} ({ratio['low']:.2f} to {ratio['high']:.2f})"


def _median(seconds: dict[str, Any] | None) -> str:
    return "" if seconds is None else scaled(seconds["median"], "s")


def scaled(value: float | None, unit: str) -> str:
    """Return a number with its unit's prefix, such as 4.21 TB/s; "" for None."""
    if not value:
        return f"0 {unit}" if value is not None else ""
    size, prefix = next((p for p in PREFIXES if abs(value) >= p[0]), PREFIXES[-1])
    return f"{value / size:.3g} {prefix}{unit}"


def milliseconds(value: float | None) -> str:
    """Return such as 41.2 µs or 4.9 ms; "" for None."""
    if value is None:
        return ""
    return f"{1e3 * value:.3g} µs" if value < 1 else f"{value:.3g} ms"
