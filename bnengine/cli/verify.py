"""`bnengine verify`: the parity certificate of this machine."""

import sys
from math import isfinite
from typing import Any

import click

from ..lab.verify import Certificate, Row, verify
from ..storage.codec import dumps
from .app import FAILED
from .options import json_option
from .tables import print_table

HEADER = ("what", "a", "b", "worst error", "bound", "ok", "nearest to its bound")
PLURAL = {"op": "ops", "layer": "layers", "optimizer": "optimizers", "training": "trainings"}


@click.command("verify")
@click.option("--backend", "backends", multiple=True, metavar="NAME", help="Compare only this with NumPy (repeatable).")
@click.option("--quick", is_flag=True, help="A few training steps instead of 50.")
@click.option("--seed", type=click.IntRange(min=0), default=0, metavar="N", help="Seed of inputs and weights.  [0]")
@click.option("--all", "every", is_flag=True, help="A line for each comparison.")
@json_option
@click.pass_context
def command(ctx: click.Context, backends: tuple[str, ...], quick: bool, seed: int, every: bool, as_json: bool) -> None:
    """Show that all array libraries, dtypes and fused versions agree on this machine.

    Every op, layer, optimizer and a training step by step, on NumPy in float64 and float32 and on every other library
    that can be used here, within bounds computed from the inputs. Exit code 1 if anything disagrees.

    \b
      bnengine verify
      bnengine verify --quick --backend torch
      bnengine verify --json > certificate.json
    """
    say = _say if sys.stderr.isatty() and not as_json else None
    found = verify(list(backends) or None, quick=quick, seed=seed, say=say)
    if as_json:
        click.echo(dumps(found.to_json()))
    else:
        _show(found, every)
    if not found.agreed:
        ctx.exit(FAILED)


def _say(part: str) -> None:
    click.echo(f"verify: {part}", err=True)


def _show(found: Certificate, every: bool) -> None:
    """The machine, the table, what disagrees in full, what was not run, and one line that sums it up."""
    click.echo(_machine(found.environment))
    lines = [_line(row.what, row) for row in found.rows] if every else _summary(found.rows)
    print_table(HEADER[: len(lines[0])], lines, lambda line: line[5] != "yes")
    wrong = [row for row in found.rows if not row.ok]
    if wrong and not every:
        click.echo("\ndisagree")
        for row in wrong:
            by = f" differ by {row.error:.3g}, bound {row.bound:.3g}" if isfinite(row.error) else ""
            click.echo(f"  {row.what}: {row.a} and {row.b}{by}")
    if found.not_run:
        click.echo("\nnot run")
        for left in found.not_run:
            click.echo(f"  {left.what}: {left.why}")
    rows = f"{len(found.rows):,} comparisons"
    click.echo(f"\n{rows} agree" if found.agreed else f"\n{len(wrong):,} of {rows} disagree: {wrong[0].what}")


def _machine(environment: dict[str, Any]) -> str:
    usable = [f"{b['name']} {b['version']} on {b['device']}" for b in environment["backends"] if b["usable"]]
    driver = f", CUDA driver {environment['driver']}" if environment["driver"] else ""
    return f"bnengine {environment['bnengine']}, Python {environment['python']}, {'; '.join(usable)}{driver}\n"


def _summary(rows: tuple[Row, ...]) -> list[tuple[str, ...]]:
    """A line for each kind and pair: how many comparisons, and the one that is nearest to its bound."""
    groups: dict[tuple[str, str, str], list[Row]] = {}
    for row in rows:
        groups.setdefault((row.what.split(" ", 1)[0], row.a, row.b), []).append(row)
    lines = []
    for (kind, _, _), group in groups.items():
        row = max(group, key=lambda r: (not r.ok, r.share))
        agree = row._replace(ok=all(r.ok for r in group))
        lines.append((*_line(f"{PLURAL[kind]} ({len(group)})", agree), row.what.split(" ", 1)[1].split(" (")[0]))
    return lines


def _line(what: str, row: Row) -> tuple[str, ...]:
    return what, row.a, row.b, f"{row.error:.2g}", f"{row.bound:.2g}", "yes" if row.ok else "NO"
