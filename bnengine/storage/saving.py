"""Save and load networks and trainings as one checkpoint each: what a tensor is called, what the metadata holds."""

from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np

from .._version import __version__
from ..arrays.backend import Backend
from ..data import Preprocessing
from ..errors import CheckpointError, InputError
from ..network.precision import PrecisionName
from ..network.sequential import Sequential
from . import checkpoint

MODEL = "model.safetensors"
KIND = "bnengine model"
_AVERAGE = "step.average."  # what a training's arrays of averaged weights and their statistics begin with
Weights = Literal["auto", "raw", "average"]


class Resumable(Protocol):
    """A training that can be saved: a `Trainer`."""

    def state(self) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """(arrays, JSON values) that resuming needs."""


class Saved(NamedTuple):
    """A network's configuration and state, its preprocessing, and a training's arrays and values.

    `recalibrated`: the running statistics were put in by `save_statistics`, and are no average of the training's.
    """

    config: dict[str, Any]
    state: dict[str, np.ndarray]
    preprocessing: Preprocessing | None
    arrays: dict[str, np.ndarray]
    training: dict[str, Any] | None
    recalibrated: bool = False


def save(path: Any, network: Sequential, *, trainer: Resumable | None = None) -> None:
    """Write `network` to `path`, a file or a run folder; with `trainer`, all that resuming needs too.

    Parameters, running statistics, configuration and the preprocessing of raw data are written atomically as
    safetensors. Equal states give equal bytes. Raises CheckpointError, the old file intact.
    """
    tensors = {f"network.{name}": array for name, array in network.state_dict().items()}
    metadata: dict[str, Any] = {"kind": KIND, "bnengine": __version__, "network": network.config()}
    if network.preprocessing is not None:
        values, arrays = network.preprocessing.to_state()
        metadata["preprocessing"] = values
        tensors |= {f"preprocessing.{name}": array for name, array in arrays.items()}
    if trainer is not None:
        arrays, metadata["training"] = trainer.state()
        tensors |= {f"training.{name}": array for name, array in arrays.items()}
    checkpoint.write(file_of(path), tensors, metadata)


def save_statistics(path: Any, network: Sequential, *, of: Any) -> None:
    """Write the checkpoint `of` to `path` with the running statistics of `network`, as `load` gave it: nothing else
    differs.

    They take the place of those of the averaged weights if `of` holds an average, else of the trained ones'. Raises
    CheckpointError, the old file intact.
    """
    tensors, metadata = checkpoint.read(file_of(of))
    prefix = "network."
    if any(name.startswith(f"training.{_AVERAGE}") for name in tensors):
        prefix = f"training.{_AVERAGE}"
    parameters = network.named_parameters()
    for name, array in network.state_dict().items():
        if name not in parameters:
            tensors[prefix + name] = array
    checkpoint.write(file_of(path), tensors, {**metadata, "recalibrated": True})


def read(path: Any) -> Saved:
    """What a checkpoint holds, checked byte for byte; Raises CheckpointError."""
    file = file_of(path)
    tensors, metadata = checkpoint.read(file)
    if metadata.get("kind") != KIND:
        raise CheckpointError(
            f"{file}: a checkpoint of {metadata.get('kind')!r}, not of a network; give a model.safetensors"
        )
    parts: dict[str, dict[str, np.ndarray]] = {"network": {}, "preprocessing": {}, "training": {}}
    for name, array in tensors.items():
        part, rest = name.split(".", 1)
        parts[part][rest] = array
    values = metadata.get("preprocessing")
    preprocessing = None if values is None else Preprocessing.from_state(values, parts["preprocessing"])
    training, recalibrated = metadata.get("training"), bool(metadata.get("recalibrated"))
    return Saved(metadata["network"], parts["network"], preprocessing, parts["training"], training, recalibrated)


def load(
    path: Any,
    *,
    backend: str | Backend | None = None,
    weights: Weights = "auto",
    precision: PrecisionName = "highest",
) -> Sequential:
    """The network that `save` or a training wrote to `path`, a file or a run folder, on `backend`.

    A file holds parameters in full precision whatever it was trained in, so any `precision` of the backend will do.
    `weights`: "raw", the trained ones; "average", the averaged ones of a training that kept an average; "auto", the
    averaged ones if there are any. `network.preprocessing` is what raw data must go through (`predict` of this module
    does).
    """
    if weights not in ("auto", "raw", "average"):
        raise InputError(f"load: weights {weights!r} is not 'auto', 'raw' or 'average'")
    saved = read(path)
    network = Sequential.from_config(saved.config, backend=backend, precision=precision)
    averaged = {k.removeprefix(_AVERAGE): v for k, v in saved.arrays.items() if k.startswith(_AVERAGE)}
    if weights == "average" and not averaged:
        raise CheckpointError(f"{file_of(path)}: no average of the weights was kept; load it with weights='raw'")
    network.load_state_dict(averaged if averaged and weights != "raw" else saved.state)
    network.preprocessing = saved.preprocessing
    return network


def file_of(path: Any) -> Path:
    """The model file of a run folder, or the file itself."""
    given = Path(path)
    return given / MODEL if given.is_dir() else given
