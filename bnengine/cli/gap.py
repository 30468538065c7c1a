"""`bnengine gap`: why a network does worse in evaluation than in training."""

from typing import Any

import click

from ..errors import InputError
from ..inspect.findings import Known
from ..inspect.gap import Gap, gap
from ..storage import saving
from ..storage.codec import dumps
from ..storage.runs import CONFIG, read_config
from .assembly import source_of
from .evaluate import loss_of
from .models import PARTS, Model, data_for, load_model
from .options import backend_option, json_option, target_option
from .settings import Settings


@click.command("gap")
@click.argument("run")
@click.argument("data")
@target_option
@backend_option
@json_option
def command(run: str, data: str, target: str | None, backend: str | None, as_json: bool) -> None:
    """Say why training and evaluation of RUN differ, or why it does worse on DATA.

    RUN is the folder of a run: its config.toml names the data that it was trained with. DATA is what evaluate takes, or
    validation or train for those parts of the run's own.

    \b
      bnengine gap runs/digits-1 validation
      bnengine gap runs/flowers-1 more-flowers.csv --json

    Loss and accuracy by the running statistics, the exact ones and the data's own are compared, and one cause is named:
    not converged, weights moving faster than the average, uncentred inputs, small batches, dropout, data shift, or
    none. The network stays as it is.
    """
    model = load_model("gap", run, backend)
    found, trained_by, judged = gap_of("gap", run, model, data, target)
    if as_json:
        head = {"model": str(model.file), "data": judged, "training": trained_by}
        click.echo(dumps({**head, **found.to_json()}))
        return
    click.echo(f"{model.file} on {judged}, trained by {trained_by}, on {model.network.backend.name}")
    click.echo(str(found))


def gap_of(command: str, run: str, model: Model, data: str, target: str | None) -> tuple[Gap, str, str]:
    """The gap of a run's model on `data`; what it was trained by and what the data are, in words. Raises InputError."""
    config = model.file.parent / CONFIG
    if not config.is_file():
        raise InputError(
            f"{command}: {run}: there is no {CONFIG} beside {model.file} to say which data it was trained on; give the "
            "folder of a run, or call bnengine.inspect.gap(network, data, training=...) from Python"
        )
    settings = Settings.from_tables(read_config(config, command), str(config))

    def source(name: str, target: str | None) -> tuple[Any, str]:
        dataset, rows = data_for(command, model, name, target, need_targets=name in PARTS)
        found = source_of(dataset, model.preprocessing, rows, model.network.dtype)
        return found, f"{found.rows:,} rows of {dataset.name}"

    (trained, trained_by), (given, judged) = source("train", None), source(data, target)
    found = gap(
        model.network,
        given,
        training=None if data == "train" else trained,
        batch_size=settings.batch_size,
        accumulate=settings.accumulate,
        steps=Known.of(saving.read(model.file), None).steps,
        loss=loss_of(model),
    )
    return found, trained_by, judged
