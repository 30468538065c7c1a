"""`bnengine predict`: write the predictions of a trained network to a file."""

import csv
import io
from collections.abc import Callable
from pathlib import Path

import click
import numpy as np

from .._typing import Array
from ..data import Preprocessing
from ..data.loading import with_target_column
from ..errors import InputError
from ..network.inference import Predictions, predict
from ..runtime.modes import Mode, using
from ..storage.atomic import replace_file
from .models import data_for, load_model
from .options import backend_option, kernels_option


def npz_bytes(answers: Predictions, preprocessing: Preprocessing) -> bytes:
    """labels, probabilities and classes, or values, as an .npz file."""
    arrays: dict[str, Array] = {"values": answers.values}
    if preprocessing.classes is not None:
        arrays = {
            "labels": answers.labels,
            "probabilities": answers.probabilities,
            "classes": preprocessing.classes.values,
        }
    file = io.BytesIO()
    np.savez(file, **arrays)
    return file.getvalue()


def csv_bytes(answers: Predictions, preprocessing: Preprocessing) -> bytes:
    """A header and a row for each sample, with enough digits to read back the same numbers."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    if preprocessing.classes is not None:
        labels, probabilities = np.asarray(answers.labels).tolist(), np.asarray(answers.probabilities).tolist()
        writer.writerow(["label", *(f"probability_{label}" for label in preprocessing.classes.values.tolist())])
        writer.writerows([label, *shares] for label, shares in zip(labels, probabilities, strict=True))
    else:
        name, outputs = preprocessing.target or "value", preprocessing.outputs
        writer.writerow([name] if outputs == 1 else [f"{name}_{i}" for i in range(outputs)])
        writer.writerows(np.asarray(answers.values).reshape(-1, outputs).tolist())
    return file.getvalue().encode()


WRITERS: dict[str, Callable[[Predictions, Preprocessing], bytes]] = {".csv": csv_bytes, ".npz": npz_bytes}
SUFFIXES = " or ".join(WRITERS)


@click.command("predict", short_help="Write predictions for new data to a file.")
@click.argument("run")
@click.argument("data")
@click.option(
    "-o",
    "--output",
    required=True,
    metavar="FILE",
    type=click.Path(path_type=Path),
    help=f"The file to write: {SUFFIXES}.",
)
@click.option("--force", is_flag=True, help="Replace FILE if it exists.")
@click.option(
    "--target",
    metavar="COLUMN",
    help=f"A column of a {with_target_column()} file to leave out.  [the target of training]",
)
@backend_option
@kernels_option
@click.option("--quiet", is_flag=True, help="Print nothing but errors.")
def command(
    run: str, data: str, output: Path, force: bool, target: str | None, backend: str | None, kernels: Mode, quiet: bool
) -> None:
    """Write what the network of RUN predicts for DATA to a file.

    RUN is the folder of a run or a model file. DATA is raw, as for train, with or without targets. Predictions are
    labels, or values in the units of the training targets.

    \b
      bnengine predict runs/digits-1 new.npz -o answers.npz
      bnengine predict runs/flowers-1 new-flowers.csv -o answers.csv

    A .csv file has a row for each sample: label and a column probability_LABEL for each class, or for a regression a
    column for each target. An .npz file has the arrays labels, probabilities and classes, or values.
    """
    write = WRITERS.get(output.suffix.lower())
    if write is None:
        raise InputError(f"predict: -o {output}: the name must end in {SUFFIXES}. Name another file.")
    if output.exists() and not force:
        raise InputError(f"predict: -o {output}: the file exists. Name another, or replace it with --force.")
    model = load_model("predict", run, backend)
    dataset, rows = data_for("predict", model, data, target, need_targets=False)
    x = dataset.x if rows is None else np.asarray(dataset.x[rows])
    with using(kernels):
        answers = predict(model.network, x)
    try:
        replace_file(output, [write(answers, model.preprocessing)])
    except OSError as error:
        raise InputError(f"predict: -o {output}: cannot write it ({error.strerror}). Name another file.") from error
    if not quiet:
        click.echo(f"{len(x):,} predictions of {model.file} in {output}")
