"""`bnengine recalibrate`: running statistics replaced by the exact ones, in a new checkpoint."""

from pathlib import Path
from typing import Any

import click

from ..data import ArraySource, Dataset
from ..errors import InputError
from ..inspect import recalibrate
from ..storage import saving
from ..storage.codec import dumps
from ..training.evaluation import evaluate
from .assembly import source_of
from .evaluate import loss_of
from .models import Model, data_for, load_model
from .options import backend_option, json_option, target_option

NAME = "recalibrated.safetensors"


@click.command("recalibrate")
@click.argument("run")
@click.argument("data")
@click.option("-o", "--output", metavar="FILE", help=f"The checkpoint to write.  [{NAME} beside the model]")
@click.option("--force", is_flag=True, help="Replace FILE if it is there.")
@target_option
@backend_option
@json_option
def command(
    run: str, data: str, output: str | None, force: bool, target: str | None, backend: str | None, as_json: bool
) -> None:
    """Write a copy of RUN's checkpoint whose running statistics are the exact ones of DATA.

    RUN is the folder of a run or a model file, and stays as it is. DATA is what evaluate takes, with targets or
    without; train, for the rows that the run was trained with, is what is wanted mostly.

    \b
      bnengine recalibrate runs/digits-1 train
      bnengine evaluate runs/digits-1/recalibrated.safetensors validation

    Only the statistics differ, so a training can go on from the copy. Loss and accuracy before and after are those on
    DATA, and on the run's validation rows where it has some.
    """
    model = load_model("recalibrate", run, backend)
    file = model.file.parent / NAME if output is None else Path(output)
    _check(file, model, force)
    dataset, rows = data_for("recalibrate", model, data, target, need_targets=False)
    source = source_of(dataset, model.preprocessing, rows, model.network.dtype)
    judged = _judges(model, data, dataset, source)
    before = _figures(model, judged)
    recalibrate(model.network, source)
    after = _figures(model, judged)
    saving.save_statistics(file, model.network, of=model.file)
    if as_json:
        head = {"model": str(model.file), "written": str(file), "data": dataset.name, "rows": source.rows}
        click.echo(dumps({**head, "before": before, "after": after}))
        return
    click.echo(f"{file}: {model.file} with the exact statistics of {source.rows:,} rows of {dataset.name}")
    for name in judged:
        for key, value in before[name].items():
            click.echo(f"{name:<12}{key:<22}{value:10.4g} -> {after[name][key]:.4g}")


def _check(file: Path, model: Model, force: bool) -> None:
    if file.suffix != ".safetensors":
        raise InputError(f"recalibrate: -o {file}: the file's name must end in .safetensors")
    if not file.parent.is_dir():
        raise InputError(f"recalibrate: -o {file}: its folder does not exist; create it first")
    if file.exists() and file.samefile(model.file):
        raise InputError(f"recalibrate: -o {file}: this is the model itself, which stays as it is; name another file")
    if file.exists() and not force:
        raise InputError(f"recalibrate: {file} is there already; name another with -o, or replace it by --force")


def _judges(model: Model, data: str, dataset: Dataset, source: ArraySource) -> dict[str, ArraySource]:
    """What loss and accuracy are measured on, by name."""
    found = {} if dataset.y is None else {data: source}
    if data == "train" and len(model.preprocessing.valid_indices):
        found["validation"] = source_of(
            dataset, model.preprocessing, model.preprocessing.valid_indices, model.network.dtype
        )
    return found


def _figures(model: Model, judged: dict[str, ArraySource]) -> dict[str, dict[str, Any]]:
    loss = loss_of(model)
    return {name: evaluate(model.network, loss, source) for name, source in judged.items()}
