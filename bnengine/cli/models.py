"""What evaluate, predict and info take: a trained model, and data for it."""

from pathlib import Path
from typing import NamedTuple

from .._typing import Array
from ..data import Dataset, Preprocessing
from ..data.loading import takes_target
from ..errors import InputError
from ..network.sequential import Sequential
from ..storage import saving
from ..storage.runs import CONFIG, read_config
from .assembly import backend_of, load_data
from .settings import Settings

PARTS = ("validation", "train")


class Model(NamedTuple):
    """A network, the preprocessing that it carries, and the file that it is in."""

    network: Sequential
    preprocessing: Preprocessing
    file: Path


def load_model(command: str, run: str, backend: str | None) -> Model:
    """The model of a run's folder, or of a model file; InputError or CheckpointError where there is none."""
    file = model_file(command, run)
    network = saving.load(file, backend=backend_of(command, backend))
    if network.preprocessing is None:
        raise InputError(
            f"{command}: {run}: the model carries no preprocessing, so raw data cannot be put through it; use it from "
            "Python, with network.predict(x) on ready features"
        )
    return Model(network, network.preprocessing, file)


def model_file(command: str, run: str) -> Path:
    """The model file of a run's folder, or the file itself; InputError where there is none."""
    path = Path(run)
    if not path.exists():
        raise InputError(f"{command}: {run}: there is no such run or model file (looked in {Path.cwd()})")
    file = saving.file_of(path)
    if not file.exists():
        told = "has not saved a checkpoint yet" if (path / CONFIG).exists() else f"is no run, it has no {saving.MODEL}"
        raise InputError(f"{command}: {run}: the folder {told}; give the folder of a run, such as runs/digits-1")
    return file


def data_for(
    command: str, model: Model, data: str, target: str | None, *, need_targets: bool
) -> tuple[Dataset, Array | None]:
    """The data set that a user names, its columns as in training; and which rows of it, None for all.

    "validation" and "train" are those parts of the data that the run was trained with.
    """
    preprocessing = model.preprocessing
    if data in PARTS:
        if target is not None:
            raise InputError(
                f"{command}: --target {target} cannot be given with {data}, the run's own data; leave it out"
            )
        return _own_part(command, model, data)
    if target is None and takes_target(data):
        target = preprocessing.target
    dataset = preprocessing.aligned(load_data(data, target, need_targets=need_targets))
    preprocessing.check_shape(dataset.x, dataset.name)
    return dataset, None


def _own_part(command: str, model: Model, part: str) -> tuple[Dataset, Array]:
    config, preprocessing = model.file.parent / CONFIG, model.preprocessing
    if not config.is_file():
        raise InputError(
            f"{command}: {part}: there is no {CONFIG} beside {model.file} to say which data it was trained on; "
            "name the data"
        )
    settings = Settings.from_tables(read_config(config, command), str(config))
    dataset = load_data(settings.path, settings.target or None)
    if len(dataset) != len(preprocessing.parts):
        raise InputError(
            f"{command}: {part}: {settings.path} has {len(dataset)} samples now and had {len(preprocessing.parts)} "
            "when the run was trained; name the data"
        )
    rows = preprocessing.valid_indices if part == "validation" else preprocessing.train_indices
    if not len(rows):
        raise InputError(f"{command}: {part}: the run was trained with --validation 0; name other data")
    dataset = preprocessing.aligned(dataset)
    preprocessing.check_shape(dataset.x, dataset.name)
    return dataset, rows
