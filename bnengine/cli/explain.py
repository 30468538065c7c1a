"""`bnengine explain`: test claims about batch norm."""

import sys
from collections.abc import Callable
from pathlib import Path

import click

from ..errors import InputError
from ..lab.explain import NAMES, ClaimResult, Setting, claim_of, examine, story
from ..lab.explain.drawing import new_figure
from ..lab.explain.setting import SEEDS
from ..lab.report import check_folder, claims_report, write
from ..lab.report.folder import PAGE
from ..storage.codec import dumps


@click.command("explain", short_help="Test claims about batch norm by experiments.")
@click.argument("names", nargs=-1, metavar="[NAME ... | all]")
@click.option(
    "--data", metavar="DATA", help="Data with labels, as for train, such as a folder of MNIST's IDX files.  [digits]"
)
@click.option("--backend", metavar="NAME", help="auto, numpy, cupy, cupy:1.  [auto]")
@click.option(
    "--seeds",
    type=click.IntRange(min=2),
    default=SEEDS,
    metavar="N",
    help=f"Repetitions of each experiment.  [{SEEDS}]",
)
@click.option("--json", "as_json", is_flag=True, help="Print the figures as JSON.")
@click.option("--report", metavar="DIR", help="Write a page with pictures, and the figures as CSV, into DIR.")
def command(
    names: tuple[str, ...], data: str | None, backend: str | None, seeds: int, as_json: bool, report: str | None
) -> None:
    """Test claims about batch normalization by experiments on real data, each in under 20 seconds.

    The output quotes each claim, then gives the figures over several seeds and a verdict computed from them: holds,
    holds within limits, does not hold, or undecided. Without a NAME the command lists the claims.

    \b
      bnengine explain
      bnengine explain bias-cancels
      bnengine explain all
      bnengine explain shift --data folder-with-mnist --json
      bnengine explain all --report claims
    """
    if not names:
        if report is not None:
            raise InputError("explain: --report: no claims were named. Name some, or all.")
        _list()
        return
    wanted = NAMES if names == ("all",) else names
    claims = [claim_of(name) for name in wanted]
    if report is not None:
        _ready(Path(report))
    setting = Setting(data, backend=backend, seeds=seeds)
    results = list[ClaimResult]()
    for claim in claims:
        result = examine(claim, setting, _say(claim.name, len(setting.seeds)) if sys.stderr.isatty() else None)
        results.append(result)
        if not as_json:
            click.echo(story(result) + "\n")
    if as_json:
        click.echo(dumps([result.to_json() for result in results], indent=1))
    if report is not None:
        write("explain: --report", Path(report), claims_report(results, setting))
        click.echo(f"the report is {Path(report) / PAGE}", err=True)


def _ready(folder: Path) -> None:
    """Raise InputError, before any experiment runs, if the report cannot be written."""
    check_folder("explain: --report", folder)
    new_figure()


def _say(name: str, seeds: int) -> Callable[[int], None]:
    def say(seed: int) -> None:
        click.echo(f"explain {name}: seed {seed} of {seeds}", err=True)

    return say


def _list() -> None:
    for name in NAMES:
        click.echo(f"{name:22}{claim_of(name).title}")
    click.echo("\nbnengine explain NAME tests one, bnengine explain all tests every one.")
