"""`bnengine verify`: certify that the array libraries of this machine agree."""

import sys
from math import isfinite
from typing import Any

import click

from ..lab.verify import Certificate, Row, verify
from ..metrics.tables import print_table
from ..storage.codec import dumps
from .app import FAILED
from .options import json_option

HEADER = ("what", "a", "b", "worst error", "bound", "ok", "nearest to its bound")


@click.command("verify", short_help="Check that all array libraries agree on this machine.")
@click.option("--backend", "backends", multiple=True, metavar="NAME", help="Compare only NAME with NumPy (repeatable).")
@click.option("--quick", is_flag=True, help="Run 3 training steps instead of 50.")
@click.option("--seed", type=click.IntRange(min=0), default=0, metavar="N", help="Seed of inputs and weights.  [0]")
@click.option("--all", "every", is_flag=True, help="Print a line for each comparison.")
@json_option
@click.pass_context
def command(ctx: click.Context, backends: tuple[str, ...], quick: bool, seed: int, every: bool, as_json: bool) -> None:
    """Check that all array libraries, dtypes and fused versions agree on this machine.

    The command runs every op, layer and optimizer and a training step by step, on NumPy in float64 and float32 and on
    every other usable library, and compares the results within bounds computed from the inputs. The exit code is 1 if
    anything disagrees.

    \b
      bnengine verify
      bnengine verify --quick --backend torch
      bnengine verify --json > certificate.json
    """
    say = _say if sys.stderr.isatty() and not as_json else None
    certificate = verify(list(backends) or None, quick=quick, seed=seed, say=say)
    if as_json:
        click.echo(dumps(certificate.to_json()))
    else:
        _show(certificate, every)
    if not certificate.agreed:
        ctx.exit(FAILED)


def _say(part: str) -> None:
    click.echo(f"verify: {part}", err=True)


def _show(certificate: Certificate, every: bool) -> None:
    """The machine, the table, each disagreement, what was not run, and a one-line summary."""
    click.echo(_machine(certificate.environment))
    lines = [_line(row.what, row) for row in certificate.rows] if every else _summary(certificate.rows)
    print_table(HEADER[: len(lines[0])], lines, emphasize=lambda line: line[5] != "yes")
    wrong = [row for row in certificate.rows if not row.ok]
    if wrong and not every:
        click.echo("\ndisagree")
        for row in wrong:
            by = f" differ by {row.error:.3g}, bound {row.bound:.3g}" if isfinite(row.error) else ""
            click.echo(f"  {row.what}: {row.a} and {row.b}{by}")
    if certificate.not_run:
        click.echo("\nnot run")
        for left in certificate.not_run:
            click.echo(f"  {left.what}: {left.why}")
    rows = f"{len(certificate.rows):,} comparisons"
    click.echo(f"\n{rows} agree" if certificate.agreed else f"\n{len(wrong):,} of {rows} disagree: {wrong[0].what}")


def _machine(environment: dict[str, Any]) -> str:
    usable = [f"{b['name']} {b['version']} on {b['device']}" for b in environment["backends"] if b["usable"]]
    driver = f", CUDA driver {environment['driver']}" if environment["driver"] else ""
    return f"bnengine {environment['bnengine']}, Python {environment['python']}, {'; '.join(usable)}{driver}\n"


def _summary(rows: tuple[Row, ...]) -> list[tuple[str, ...]]:
    """A line for each part and pair: the number of comparisons, and the one nearest to its bound."""
    groups: dict[tuple[str, str, str], list[Row]] = {}
    for row in rows:
        groups.setdefault((row.part, row.a, row.b), []).append(row)
    lines = []
    for (part, _, _), group in groups.items():
        row = max(group, key=lambda r: (not r.ok, r.share))
        agree = row._replace(ok=all(r.ok for r in group))
        lines.append((*_line(f"{part} ({len(group)})", agree), row.subject))
    return lines


def _line(what: str, row: Row) -> tuple[str, ...]:
    return what, row.a, row.b, f"{row.error:.2g}", f"{row.bound:.2g}", "yes" if row.ok else "NO"
