"""Load a trained model, and data for it."""

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
    """A network, its preprocessing, and the file of both."""

    network: Sequential
    preprocessing: Preprocessing
    file: Path


def load_model(command: str, run: str, backend: str | None, *, sound: bool = True) -> Model:
    """The model of a run folder or a model file; `sound` as in `bnengine.load`.

    Raises:
        InputError: no such model, or one without preprocessing.
        CheckpointError: a damaged file.
    """
    file = model_file(command, run)
    network = saving.load(file, backend=backend_of(command, backend), sound=sound)
    if network.preprocessing is None:
        raise InputError(
            f"{command}: {run}: the model has no preprocessing, so it cannot take raw data. Use it from Python: "
            "network.predict(x) takes ready features."
        )
    return Model(network, network.preprocessing, file)


def model_file(command: str, run: str) -> Path:
    """The model file of a run folder, or the file itself; InputError if it does not exist."""
    path = Path(run)
    if not path.exists():
        raise InputError(f"{command}: {run}: no such run or model file in {Path.cwd()}. Check the path.")
    file = saving.file_of(path)
    if not file.exists():
        lacks = "has no checkpoint yet" if (path / CONFIG).exists() else f"is not a run: it has no {saving.MODEL}"
        raise InputError(f"{command}: {run}: the folder {lacks}. Give the folder of a run, such as runs/digits-1.")
    return file


def data_for(
    command: str, model: Model, data: str, target: str | None, *, need_targets: bool
) -> tuple[Dataset, Array | None]:
    """The data set of a name, with its columns as in training, and the rows to use (None for all).

    "validation" and "train" are those parts of the data that the run was trained on.
    """
    preprocessing = model.preprocessing
    if data in PARTS:
        if target is not None:
            raise InputError(
                f"{command}: --target {target} does not go with {data}, which is the run's own data. Leave it out."
            )
        return _part(command, model, data)
    if target is None and takes_target(data):
        target = preprocessing.target
    dataset = preprocessing.aligned(load_data(data, target, need_targets=need_targets))
    preprocessing.check_shape(dataset.x, dataset.name)
    return dataset, None


def _part(command: str, model: Model, part: str) -> tuple[Dataset, Array]:
    config, preprocessing = model.file.parent / CONFIG, model.preprocessing
    if not config.is_file():
        raise InputError(
            f"{command}: {part}: no {CONFIG} next to {model.file}, so its training data are unknown. Name a data file."
        )
    settings = Settings.from_tables(read_config(config, command), str(config))
    dataset = load_data(settings.path, settings.target or None)
    if len(dataset) != len(preprocessing.parts):
        raise InputError(
            f"{command}: {part}: the run was trained on {len(preprocessing.parts)} samples of {settings.path}, "
            f"got {len(dataset)}. Name a data file."
        )
    rows = preprocessing.valid_indices if part == "validation" else preprocessing.train_indices
    if not len(rows):
        raise InputError(f"{command}: {part}: the run was trained with --validation 0. Name other data.")
    dataset = preprocessing.aligned(dataset)
    preprocessing.check_shape(dataset.x, dataset.name)
    return dataset, rows
