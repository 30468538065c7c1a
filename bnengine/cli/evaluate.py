"""`bnengine evaluate`: measure a trained network on data with known answers."""

import sys
from typing import Any

import click
import numpy as np

from .._typing import Array
from ..data import Dataset, groups
from ..losses import LossFunction, get_loss, usual_loss
from ..metrics import R2, Accuracy, ConfusionMatrix, MeanAbsoluteError, Metric, TopK, facts_of
from ..network.inference import predict
from ..runtime.modes import Mode, using
from ..storage import saving
from ..storage.codec import dumps
from ..training.evaluation import evaluate
from .assembly import source_of
from .models import Model, data_for, load_model
from .options import backend_option, json_option, kernels_option, target_option

TOP = 5
ROWS_AT_ONCE = 1024


@click.command("evaluate", short_help="Measure a network on data with known answers.")
@click.argument("run")
@click.argument("data")
@target_option
@backend_option
@kernels_option
@json_option
def command(run: str, data: str, target: str | None, backend: str | None, kernels: Mode, as_json: bool) -> None:
    """Measure the network of RUN on DATA.

    RUN is the folder of a run or a model file. DATA is what train takes, raw: the model contains the scaling. Or it is
    validation or train, for those parts of the data that the run was trained on.

    \b
      bnengine evaluate runs/digits-1 validation
      bnengine evaluate runs/flowers-1 more-flowers.csv --json

    For a classification the command prints loss, accuracy, the figures of each class and the confusion matrix; for a
    regression the mean squared error, the mean absolute error and R2 in the units of the data.
    """
    model = load_model("evaluate", run, backend)
    dataset, rows = data_for("evaluate", model, data, target, need_targets=True)
    matrix = None
    with using(kernels):
        if model.preprocessing.classes is None:
            result = _regression(model, dataset, rows)
        else:
            result, matrix = _classification(model, dataset, rows)
    if as_json:
        click.echo(dumps(result))
    else:
        _show(model, result, matrix)


def loss_of(model: Model) -> LossFunction:
    """The loss of the training, or the usual one for a network that was saved without its training."""
    training = saving.read(model.file).training
    if training is not None:
        return get_loss(training["loss"])
    return usual_loss("regression" if model.preprocessing.classes is None else "classification", model.network.outputs)


def _head(model: Model, dataset: Dataset, rows: Array | None) -> dict[str, Any]:
    count = len(dataset) if rows is None else len(rows)
    return {"backend": model.network.backend.name, "model": str(model.file), "data": dataset.name, "rows": count}


def _measured(model: Model, dataset: Dataset, rows: Array | None, metrics: list[Metric]) -> dict[str, float]:
    source = source_of(dataset, model.preprocessing, rows, model.network.dtype)
    return evaluate(model.network, loss_of(model), source, batch_size=ROWS_AT_ONCE, metrics=metrics)


def _classification(model: Model, dataset: Dataset, rows: Array | None) -> tuple[dict[str, Any], ConfusionMatrix]:
    classes = model.preprocessing.classes
    assert classes is not None
    matrix, labels = ConfusionMatrix(len(classes)), classes.values.tolist()
    metrics: list[Metric] = [Accuracy(), *([TopK(TOP)] if len(classes) > TOP else []), matrix]
    figures = _measured(model, dataset, rows, metrics)
    del figures[matrix.name]  # the accuracy once more
    report = matrix.report(labels).to_dict()
    detail = {"classes": labels, "confusion_matrix": matrix.matrix.tolist(), "report": report}
    return {**_head(model, dataset, rows), **figures, **detail}, matrix


def _regression(model: Model, dataset: Dataset, rows: Array | None) -> dict[str, Any]:
    """Figures in the units of the data, and the loss, which is that of standardized targets."""
    assert dataset.y is not None
    figures = _measured(model, dataset, rows, [])
    indices = np.arange(len(dataset)) if rows is None else rows
    squares, error, r2 = 0.0, MeanAbsoluteError(), R2()
    for part in groups(len(indices), ROWS_AT_ONCE, last="keep"):
        values = predict(model.network, np.asarray(dataset.x[indices[part]])).values
        assert values is not None
        predicted = values.reshape(len(values), -1)
        targets = np.asarray(dataset.y[indices[part]], dtype=np.float64).reshape(predicted.shape)
        squares += float(np.sum((predicted - targets) ** 2))
        error.update(predicted, targets)
        r2.update(predicted, targets)
    mean = squares / (len(indices) * model.preprocessing.outputs)
    scores = {"mean_squared_error": mean, error.name: error.value(), r2.name: r2.value()}
    return {**_head(model, dataset, rows), **figures, **scores}


FIGURES = ("loss", "accuracy", f"top_{TOP}_accuracy", "mean_squared_error", "mean_absolute_error", "r2")


def _show(model: Model, result: dict[str, Any], matrix: ConfusionMatrix | None) -> None:
    click.echo(f"{result['model']} on {result['rows']:,} rows of {result['data']}, on {result['backend']}")
    for key in FIGURES:
        if key in result:
            unit = " (of standardized targets)" if key == "loss" and matrix is None else ""
            click.echo(f"{facts_of(key).label:<20} {result[key]:.6g}{unit}")
    if matrix is None or model.preprocessing.classes is None:
        return
    labels = model.preprocessing.classes.values.tolist()
    click.echo()
    if sys.stdout.isatty():
        from rich.console import Console

        Console().print(matrix.table(labels))
    else:
        click.echo(matrix.text(labels))
