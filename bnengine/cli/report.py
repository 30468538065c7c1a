"""`bnengine report`: a run told on one page."""

from pathlib import Path

import click

from ..report import check_folder, run_report, write
from ..report.folder import PAGE
from ..runs import CONFIG, read_config, read_metrics
from .models import load_model


@click.command("report")
@click.argument("run")
@click.option("--out", metavar="DIR", help="The report's folder, made or replaced.  [the folder report of the run]")
def command(run: str, out: str | None) -> None:
    """Write a report of RUN: one HTML page that needs nothing else, and its numbers as CSV.

    It shows how the training went, the network, the statistics of every BatchNorm, and every setting.

    \b
      bnengine report runs/digits-1
      bnengine report runs/digits-1 --out digits-report
    """
    model = load_model("report", run, "numpy")
    source = model.file.parent
    folder = Path(out) if out is not None else source / "report"
    check_folder("report", folder)
    config = source / CONFIG
    tables = read_config(config, "report") if config.is_file() else {}
    write("report", folder, run_report(source, model.network, tables, read_metrics(source)))
    click.echo(f"{folder / PAGE}")
