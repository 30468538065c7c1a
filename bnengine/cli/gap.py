"""`bnengine gap`: explain why a network does worse in evaluation than in training."""

from typing import Any

import click

from ..errors import InputError
from ..inspect.findings import TrainingFacts
from ..inspect.gap import Gap, gap
from ..storage import saving
from ..storage.codec import dumps
from ..storage.runs import CONFIG, read_config
from .assembly import source_of
from .evaluate import loss_of
from .models import PARTS, Model, data_for, load_model
from .options import backend_option, json_option, target_option
from .settings import Settings


@click.command("gap", short_help="Explain why training and evaluation differ.")
@click.argument("run")
@click.argument("data")
@target_option
@backend_option
@json_option
def command(run: str, data: str, target: str | None, backend: str | None, as_json: bool) -> None:
    """Explain why training and evaluation of RUN differ, or why it does worse on DATA.

    RUN is the folder of a run; its config.toml names the training data. DATA is what evaluate takes, or validation or
    train for those parts of the run's own data.

    \b
      bnengine gap runs/digits-1 validation
      bnengine gap runs/flowers-1 more-flowers.csv --json

    The command compares loss and accuracy with the running statistics, the exact ones and those of the data, and names
    one cause: not converged, weights moving faster than the average, uncentred inputs, small batches, dropout, data
    shift, or none. It does not change the network.
    """
    model = load_model("gap", run, backend)
    result, trained_by, judged = gap_of("gap", run, model, data, target)
    if as_json:
        head = {"model": str(model.file), "data": judged, "training": trained_by}
        click.echo(dumps({**head, **result.to_json()}))
        return
    click.echo(f"{model.file} on {judged}, trained by {trained_by}, on {model.network.backend.name}")
    click.echo(str(result))


def gap_of(command: str, run: str, model: Model, data: str, target: str | None) -> tuple[Gap, str, str]:
    """The gap of a run's model on `data`, and descriptions of the training data and of `data`; InputError."""
    config = model.file.parent / CONFIG
    if not config.is_file():
        raise InputError(
            f"{command}: {run}: no {CONFIG} next to {model.file}, so its training data are unknown. Give the folder of "
            "a run, or call bnengine.inspect.gap(network, data, training=...) from Python."
        )
    settings = Settings.from_tables(read_config(config, command), str(config))

    def source(name: str, target: str | None) -> tuple[Any, str]:
        dataset, rows = data_for(command, model, name, target, need_targets=name in PARTS)
        selected = source_of(dataset, model.preprocessing, rows, model.network.dtype)
        return selected, f"{selected.rows:,} rows of {dataset.name}"

    (trained, trained_by), (judged_rows, judged) = source("train", None), source(data, target)
    result = gap(
        model.network,
        judged_rows,
        training=None if data == "train" else trained,
        batch_size=settings.batch_size,
        accumulate=settings.accumulate,
        steps=TrainingFacts.of(saving.read(model.file), None).steps,
        loss=loss_of(model),
    )
    return result, trained_by, judged
