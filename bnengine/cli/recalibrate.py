"""`bnengine recalibrate`: replace running statistics by exact ones, in a new checkpoint."""

from pathlib import Path
from typing import Any

import click

from ..data import ArraySource, Dataset
from ..errors import InputError
from ..inspect import recalibrate
from ..metrics.tables import print_table
from ..storage import saving
from ..storage.codec import dumps
from ..training.evaluation import evaluate
from .assembly import source_of
from .evaluate import loss_of
from .models import Model, data_for, load_model
from .options import backend_option, json_option, target_option

NAME = "recalibrated.safetensors"


@click.command("recalibrate", short_help="Write a checkpoint with exact statistics.")
@click.argument("run")
@click.argument("data")
@click.option(
    "-o",
    "--output",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help=f"The checkpoint to write.  [{NAME} next to the model]",
)
@click.option("--force", is_flag=True, help="Replace FILE if it exists.")
@target_option
@backend_option
@json_option
def command(
    run: str, data: str, output: Path | None, force: bool, target: str | None, backend: str | None, as_json: bool
) -> None:
    """Write a copy of RUN's checkpoint whose running statistics are the exact ones of DATA.

    RUN is the folder of a run or a model file; it does not change. DATA is what evaluate takes, with or without
    targets; the usual choice is train, the rows that the run was trained on.

    \b
      bnengine recalibrate runs/digits-1 train
      bnengine evaluate runs/digits-1/recalibrated.safetensors validation

    Only the statistics differ, so a training can resume from the copy. The command prints loss and accuracy before and
    after, on DATA and on the validation rows of the run.
    """
    model = load_model("recalibrate", run, backend)
    file = output or model.file.parent / NAME
    _check(file, model, force)
    dataset, rows = data_for("recalibrate", model, data, target, need_targets=False)
    source = source_of(dataset, model.preprocessing, rows, model.network.dtype)
    sources = _measured_on(model, data, dataset, source)
    before = _figures(model, sources)
    recalibrate(model.network, source)
    after = _figures(model, sources)
    saving.save_statistics(file, model.network, of=model.file)
    if as_json:
        head = {"model": str(model.file), "written": str(file), "data": dataset.name, "rows": source.rows}
        click.echo(dumps({**head, "before": before, "after": after}))
        return
    click.echo(f"{file}: {model.file} with the exact statistics of {source.rows:,} rows of {dataset.name}")
    rows = [
        (name, key, f"{value:.4g}", f"{after[name][key]:.4g}")
        for name in sources
        for key, value in before[name].items()
    ]
    if rows:
        print_table(("rows", "figure", "before", "after"), rows, numbers=(2, 3))


def _check(file: Path, model: Model, force: bool) -> None:
    if file.suffix != ".safetensors":
        raise InputError(f"recalibrate: -o {file}: the name must end in .safetensors. Name another file.")
    if not file.parent.is_dir():
        raise InputError(f"recalibrate: -o {file}: its folder does not exist. Create it first.")
    if file.exists() and file.samefile(model.file):
        raise InputError(f"recalibrate: -o {file}: this is the model itself. Name another file.")
    if file.exists() and not force:
        raise InputError(f"recalibrate: {file} exists. Name another with -o, or replace it with --force.")


def _measured_on(model: Model, data: str, dataset: Dataset, source: ArraySource) -> dict[str, ArraySource]:
    """The sources on which loss and accuracy are measured, by name."""
    sources = {} if dataset.y is None else {data: source}
    if data == "train" and len(model.preprocessing.valid_indices):
        sources["validation"] = source_of(
            dataset, model.preprocessing, model.preprocessing.valid_indices, model.network.dtype
        )
    return sources


def _figures(model: Model, sources: dict[str, ArraySource]) -> dict[str, dict[str, Any]]:
    loss = loss_of(model)
    return {name: evaluate(model.network, loss, source) for name, source in sources.items()}
