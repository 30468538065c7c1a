"""`bnengine predict`: a trained network's answers for new data, in a file."""

import csv
import io
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


@click.command("predict")
@click.argument("run")
@click.argument("data")
@click.option("-o", "--output", required=True, metavar="FILE", help="The file to write: .csv or .npz.")
@click.option("--force", is_flag=True, help="Replace FILE if it is there.")
@click.option(
    "--target",
    metavar="COLUMN",
    help=f"A column of a {with_target_column()} file to leave out.  [the target of training]",
)
@backend_option
@kernels_option
@click.option("--quiet", is_flag=True, help="Print nothing but errors.")
def command(
    run: str, data: str, output: str, force: bool, target: str | None, backend: str | None, kernels: Mode, quiet: bool
) -> None:
    """Write what the network of RUN says about DATA to a file.

    RUN is the folder of a run or a model file; DATA is raw, as for train, with targets or without. The answers are your
    own labels, or values in your own units.

    \b
      bnengine predict runs/digits-1 new.npz -o answers.npz
      bnengine predict runs/flowers-1 new-flowers.csv -o answers.csv

    A .csv file gets a row for each sample: label, and a column probability_LABEL for each class; of a regression, a
    column for each target. An .npz file gets the arrays labels, probabilities and classes; or values.
    """
    file = Path(output)
    if file.suffix.lower() not in (".csv", ".npz"):
        raise InputError(f"predict: -o {output}: the file's name must end in .csv or .npz")
    if file.exists() and not force:
        raise InputError(f"predict: -o {output}: the file is there already; name another, or replace it by --force")
    model = load_model("predict", run, backend)
    dataset, rows = data_for("predict", model, data, target, need_targets=False)
    x = dataset.x if rows is None else np.asarray(dataset.x[rows])
    with using(kernels):
        answers = predict(model.network, x)
    write = csv_bytes if file.suffix.lower() == ".csv" else npz_bytes
    try:
        replace_file(file, [write(answers, model.preprocessing)])
    except OSError as error:
        raise InputError(f"predict: -o {output}: it cannot be written ({error.strerror}); name another file") from error
    if not quiet:
        click.echo(f"{len(x):,} answers of {model.file} in {file}")


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
    """A header and a row for each sample; numbers with as many digits as it takes to read back the same ones."""
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
