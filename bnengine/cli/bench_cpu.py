"""What `bnengine bench` shows of a CPU."""

from typing import Any

import click

from .tables import print_table

HEADER = ("what", "ours", "references", "floor", "best of the peers", "ours / theirs", "ours / floor")
FIGURES = {"ratio_to_best_peer": "of the best peer's time", "ratio_to_floor": "of the floor"}


def show(rows: list[dict[str, Any]]) -> None:
    """The machine, a line a row, what is void and why, the targets."""
    click.echo(_machine(rows[0]["environment"]))
    click.echo("")
    print_table(HEADER, [_line(row) for row in rows], lambda line: line[1] == "void")
    kept = sum(row["disturbed_kept"] for row in rows)
    click.echo(f"\nmeasured again, because others took the cores: {sum(row['disturbed'] for row in rows)} times")
    if kept:
        click.echo(f"warning: {kept} figures were disturbed to the end; repeat the run on a machine at rest")
    _voids(rows)
    _targets(rows)


def _machine(has: dict[str, Any]) -> str:
    peers = "".join(f", {name} {version}" for name, version in has["peers"].items() if version)
    kernels = f"instruction set {has['isa']}" if has["isa"] else f"no native kernels: {has['kernels']}"
    return (
        f"bnengine {has['bnengine']}, Python {has['python']}, NumPy {has['numpy']}{peers}\n"
        f"CPU: {has['processor'] or has['machine']}, {has['threads']} of {has['usable_cores']} cores, {kernels}"
    )


def _line(row: dict[str, Any]) -> tuple[str, ...]:
    best = row["best_peer"]
    peer = "" if best is None else f"{time(row['peers_ms'][best])} {best}"
    ours = "void" if row["ours_ms"] is None else time(row["ours_ms"])
    ratios = (_ratio(row[name]) for name in FIGURES)
    return row["name"], ours, time(row["reference_ms"]), time(row["floor_ms"]), peer, *ratios


def _voids(rows: list[dict[str, Any]]) -> None:
    reasons = [(row["name"], who, why) for row in rows for who, why in row["void"].items()]
    if reasons:
        click.echo("\nvoid")
    for name, who, why in reasons:
        click.echo(f"  {name}, {who}: {why}")


def _targets(rows: list[dict[str, Any]]) -> None:
    aimed = [(row, figure, aim) for row in rows for figure, aim in row["target"].items()]
    known = [(row, figure, aim) for row, figure, aim in aimed if row["reached"][figure] is not None]
    if known:
        click.echo("\ntargets")
    for row, figure, aim in known:
        reached = "reached" if row["reached"][figure] else "NOT reached"
        click.echo(f"  {reached}: {row['name']}: {row[figure]:.3g} {FIGURES[figure]}, at most {aim:.3g}")
    if len(known) < len(aimed):
        click.echo(f"\n{len(aimed) - len(known)} of {len(aimed)} targets were not measured")


def time(ms: float | None) -> str:
    """Such as 41.2 µs, 4.9 ms."""
    if ms is None:
        return ""
    return f"{1e3 * ms:.3g} µs" if ms < 1 else f"{ms:.3g} ms"


def _ratio(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"
