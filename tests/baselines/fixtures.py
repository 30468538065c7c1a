"""Files that a5dc171 wrote, and all that the tests compare of them.

A run's config.toml names its data by a path without the folder; the tests copy everything and go there.
"""

import json
import os
import shutil
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np

import bnengine as bn
from bnengine.cli import main

from . import allowed, cases, sources, trainings
from .digests import Digests, digest, of_arrays, of_value, tensors

FOLDER = Path(__file__).resolve().parent / "fixtures"
CSV = "data/flowers.csv", "--target", "species"
# Runs of the command line, some of them interrupted, and their data.
RUNS = {
    "finished": "data/flowers.csv", "interrupted": "data/flowers.csv", "images": "data/images.npz",
    "regression": "data/prices.csv", "float16": "data/flowers.csv",
}  # fmt: skip
NARROW = ("float16",)  # runs whose arithmetic is NumPy's
# Trainings of the table that were saved within an epoch.
SAVED = (
    "optimizer: sgd", "optimizer: nesterov, decay", "optimizer: rmsprop", "optimizer: rmsprop, all", "optimizer: adam",
    "optimizer: amsgrad", "optimizer: adamw", "optimizer: amsgrad, float64, clipped", "average: averaged, float32",
    "average: recomputed, float64", "accumulate: per_micro_batch, shared, float64", "layers: residual, float32",
    "loss scale: grows", "data: batches, float32", "data: uint8, unit, float32", "frozen: parameters, float32",
    "optimizer: adam, float16", "accumulate: merged, float32", "schedule: plateau", "schedule: warm-up, plateau",
    "early stopping",
)  # fmt: skip
# Options of new runs: defaults that depend on others, and every kind of setting.
NEW: dict[str, tuple[str, ...]] = {
    "digits": ("digits", "--epochs", "1"),
    "sgd": (*CSV, "--optimizer", "sgd", "--epochs", "2", "--hidden", "8", "--validation", "0.3"),
    "adamw, step": (*CSV, "--optimizer", "adamw", "--schedule", "step", "--drop-every", "1", "--epochs", "3",
                    "--hidden", "8", "--activation", "leaky_relu", "--scaling", "centre"),
    "rmsprop, constant": (*CSV, "--optimizer", "rmsprop", "--momentum", "0.5", "--schedule", "constant",
                          "--epochs", "2",
                          "--hidden", "6,6", "--weight-decay", "0.1", "--bn-decay", "0.5", "--seed", "3"),
    "none": (*CSV, "--hidden", "none", "--norm", "none", "--scaling", "none", "--epochs", "1", "--validation", "0"),
    "no norm": (*CSV, "--hidden", "7", "--norm", "none", "--activation", "sigmoid", "--epochs", "2",
                "--dtype", "float64"),
    "images": ("data/images.npz", "--hidden", "9", "--scaling", "unit", "--epochs", "2", "--batch-size", "8"),
    "regression": ("data/prices.csv", "--target", "price", "--hidden", "9", "--epochs", "2", "--batch-size", "9"),
}  # fmt: skip
COMMANDS: dict[str, tuple[str, ...]] = {
    "evaluate": ("evaluate", "runs/finished", "validation", "--json"),
    "evaluate, images": ("evaluate", "done/images", "data/images.npz", "--json"),
    "evaluate, regression": ("evaluate", "runs/regression", "validation", "--json"),
    "evaluate, float16": ("evaluate", "done/float16", "train", "--json"),
    "doctor": ("doctor", "runs/finished", "train", "--json"),
    "gap": ("gap", "runs/finished", "validation", "--json"),
    "recalibrate": ("recalibrate", "runs/finished", "train", "--json"),
}


def file_of(name: str) -> Path:
    """The checkpoint of a training of the table."""
    slug = "-".join("".join(c if c.isalnum() else " " for c in name).split())
    return FOLDER / "checkpoints" / f"{slug}.safetensors"


def call(*arguments: str) -> str:
    """What the command line prints; an exit with another code than 0 is an error."""
    out = StringIO()
    with redirect_stdout(out):
        try:
            main(list(arguments))
        except SystemExit as error:
            if error.code:
                raise RuntimeError(f"bnengine {' '.join(arguments)}: exit code {error.code}") from error
    return out.getvalue()


@contextmanager
def within(folder: Path) -> Iterator[None]:
    """Inside, `folder` is the working directory, and holds a copy of everything under fixtures/."""
    before = Path.cwd()
    shutil.copytree(FOLDER, folder, dirs_exist_ok=True)
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


def numbers(value: Any, place: str = "") -> dict[str, float]:
    """Every number in a JSON value but times, by its place; words may be put otherwise."""
    if isinstance(value, dict):
        items = [
            (allowed.old_name(key), item) for key, item in value.items() if key not in ("seconds", "samples_per_second")
        ]
    elif isinstance(value, list):
        items = [(str(i), item) for i, item in enumerate(value)]
    else:
        return {place: value} if isinstance(value, (int, float)) else {}
    return {name: n for key, item in items for name, n in numbers(item, f"{place}/{key}").items()}


def outputs() -> dict[str, Any]:
    """What the fixtures give in the working directory, which is a copy of them: all that the tests compare.

    Runs are resumed to their end under done/; predictions, tables and reports are made of them.
    """
    found: dict[str, Any] = {}
    for name in RUNS:
        shutil.copytree(f"runs/{name}", f"done/{name}")
        call("train", "--resume", f"done/{name}", "--no-plot", "--quiet")
        found[f"run {name}"] = of_checkpoint(Path(f"done/{name}/model.safetensors"))
        found[f"metrics {name}"] = of_metrics(Path(f"done/{name}/metrics.jsonl"))
        call("train", "--config", f"runs/{name}/config.toml", "--out", f"again/{name}", "--no-plot", "--quiet")
        found[f"again {name}"] = of_checkpoint(Path(f"again/{name}/model.safetensors"))
        found[f"predictions {name}"] = predictions(Path(f"runs/{name}"), RUNS[name])
    for name in SAVED:
        found[f"loaded {name}"] = of_loaded(Path("checkpoints") / file_of(name).name, cases.table()[name].dtype)
    for name, arguments in NEW.items():
        folder = Path("new", name)
        call("train", *arguments, "--out", str(folder), "--no-plot", "--quiet")
        found[f"new {name}"] = of_checkpoint(folder / "model.safetensors") | of_config(folder / "config.toml")
    for name, arguments in COMMANDS.items():
        found[name] = numbers(json.loads(call(*arguments)))
    call("predict", "runs/finished", "data/flowers.csv", "-o", "labels.csv")
    lines = Path("labels.csv").read_text().splitlines()
    found["labels"] = {"labels": of_value([line.split(",")[0] for line in lines]), "probabilities": of_value(lines)}
    found["recalibrated"] = of_checkpoint(Path("runs/finished/recalibrated.safetensors"))
    return found


def of_checkpoint(path: Path) -> Digests:
    """Digests of its tensors and of its metadata."""
    arrays, metadata = tensors(path)
    found = of_arrays({allowed.old_name(name): array for name, array in arrays.items()})
    flat = trainings.flat(allowed.old_words(metadata))
    return found | {f"metadata.{name}": of_value(value) for name, value in flat.items()}


def of_loaded(path: Path, dtype: str) -> Digests:
    """Digests of what a network predicts that is built from a checkpoint alone, and of its weights and layers."""
    found: Digests = {}
    for weights in ("auto", "raw"):
        network = bn.load(path, backend="numpy", weights=weights)
        found[f"{weights} predicted"] = digest(network.predict(sources.inputs(dtype)[0]))
        found |= of_arrays(network.state_dict(), f"{weights} ")
    return found | {"config": of_value(allowed.old_words(network.config()))}


def of_config(path: Path) -> Digests:
    """Digests of every setting but the place of the data and the machine."""
    tables = allowed.old_words(tomllib.loads(path.read_text()))
    return {
        f"{section}.{key}": of_value(value)
        for section, values in tables.items()
        for key, value in values.items()
        if section != "made_by" and key != "path"
    }


def of_metrics(path: Path) -> list[dict[str, float]]:
    """The numbers of each epoch."""
    return [numbers(json.loads(line)) for line in path.read_text().splitlines()]


def predictions(run: Path, data: str) -> Digests:
    """Digests of what a loaded run predicts of its raw data, by its averaged and by its raw weights."""
    if data.endswith(".npz"):
        x = np.load(data)["x"]
    else:
        columns = np.genfromtxt(data, delimiter=",", skip_header=1)
        x = columns[:, ~np.isnan(columns).any(axis=0)][:, :4]
    found: Digests = {}
    for weights in ("auto", "raw"):
        made = bn.predict(bn.load(run, backend="numpy", weights=weights), x)._asdict()
        found |= {f"{weights} {name}": digest(array) for name, array in made.items() if array is not None}
    return found
