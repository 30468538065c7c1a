"""`bnengine report`: write a run on one page."""

from pathlib import Path

import click

from ..errors import InputError
from ..inspect.doctor import doctor
from ..lab.report import Inspected, check_folder, run_report, write
from ..lab.report.folder import PAGE
from ..storage import saving
from ..storage.runs import CONFIG, read_config, read_metrics
from .assembly import source_of
from .gap import gap_of
from .models import Model, data_for, load_model


@click.command("report", short_help="Write a page on a run: curves, network, statistics.")
@click.argument("run")
@click.option("--out", metavar="DIR", help="The folder of the report, created or replaced.  [RUN/report]")
@click.option("--no-data", is_flag=True, help="Do not read the run's data; leave out what needs them.")
def command(run: str, out: str | None, no_data: bool) -> None:
    """Write a report of RUN: one self-contained HTML page, and its numbers as CSV.

    It shows the course of the training, the findings of the doctor, why training and evaluation differ, the network,
    the statistics of every BatchNorm, and every setting.

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
    inspected = _without_data(model, "--no-data") if no_data else _inspected(run, model)
    write("report", folder, run_report(source, model.network, tables, read_metrics(source), inspected))
    click.echo(f"{folder / PAGE}")


def _inspected(run: str, model: Model) -> Inspected:
    """Inspect the model with the run's own rows; without them, with the reason on the page, if they are gone."""
    data = "validation" if len(model.preprocessing.valid_indices) else "train"
    try:
        dataset, rows = data_for("report", model, "train", None, need_targets=True)
        result, _, judged = gap_of("report", run, model, data, None)
    except InputError as error:
        return _without_data(model, str(error))
    source = source_of(dataset, model.preprocessing, rows, model.network.dtype)
    return Inspected(doctor(model.network, source, saving.read(model.file)), result, judged, "")


def _without_data(model: Model, why: str) -> Inspected:
    return Inspected(doctor(model.network, None, saving.read(model.file)), None, "", why)
