"""Save and load networks and trainings, each as one checkpoint: names of its tensors, keys of its metadata."""

from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol, get_args

import numpy as np

from .._version import __version__
from ..arrays.backend import Backend
from ..data import Preprocessing
from ..errors import CheckpointError, InputError
from ..network.precision import PrecisionName
from ..network.sequential import Sequential
from ..validation import choice
from . import checkpoint

MODEL = "model.safetensors"
KIND = "bnengine model"
_AVERAGE = "step.average."  # prefix of averaged weights and their statistics among the arrays of a training
Weights = Literal["auto", "raw", "average"]


class Resumable(Protocol):
    """A training that can be saved: a `Trainer`."""

    def state(self) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Return (arrays, JSON values) that resuming needs."""


class Saved(NamedTuple):
    """The content of a network's checkpoint.

    Attributes:
        config: what `Sequential.from_config` builds the network from.
        state: what `Sequential.load_state_dict` takes.
        preprocessing: that of the training data, or None.
        arrays, training: what `Trainer.load_state` takes; {} and None in a checkpoint of a network alone.
        recalibrated: whether `save_statistics` wrote the running statistics, which then are no average of a training's.
    """

    config: dict[str, Any]
    state: dict[str, np.ndarray]
    preprocessing: Preprocessing | None
    arrays: dict[str, np.ndarray]
    training: dict[str, Any] | None
    recalibrated: bool = False


def save(path: Any, network: Sequential, *, trainer: Resumable | None = None) -> None:
    """Write a network to a file, atomically, as safetensors. Equal states give equal bytes.

    Args:
        path: the file, or a run folder.
        network: its parameters, running statistics, configuration and preprocessing are written.
        trainer: write its state too: all that `Trainer.resume` needs.

    Raises:
        CheckpointError: the file cannot be written; the old one is intact.
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
    """Copy a checkpoint, with other running statistics.

    Args:
        path: the new file, or a run folder.
        network: what `load` returned for `of`, with the statistics to write. They replace those of the averaged weights
            if the checkpoint holds an average, else those of the trained weights.
        of: the checkpoint to copy.

    Raises:
        CheckpointError: a file cannot be read or written; the old one is intact.
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
    """Read a checkpoint of a network and check it byte for byte; CheckpointError if that fails."""
    file = file_of(path)
    tensors, metadata = checkpoint.read(file)
    if metadata.get("kind") != KIND:
        raise CheckpointError(
            f"{file}: the checkpoint must be of a network, got {metadata.get('kind')!r}. Pass a {MODEL}."
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
    sound: bool = True,
) -> Sequential:
    """Load a network that `save` or a training wrote.

    The network carries the preprocessing of its training data, so `bnengine.predict(network, x)` takes raw data.

    Args:
        path: the file, or a run folder.
        backend: a name or a Backend; None for `BNENGINE_BACKEND`, else "auto".
        weights: "raw": the trained weights; "average": their average, if the training kept one; "auto": the average if
            there is one, else the trained weights.
        precision: of activations and products, see `bnengine.network.precision`; a file holds parameters in full
            precision, so it may differ from the one that trained.
        sound: whether to refuse numbers that no training leaves, such as a negative variance; a diagnosis takes them.

    Returns:
        The network, ready to predict and to train.

    Raises:
        InputError: an unknown option, or a precision that the backend lacks.
        CheckpointError: the file cannot be read, holds such numbers, or `weights` is "average" and it holds none.
    """
    choice("load", "weights", weights, get_args(Weights))
    saved = read(path)
    network = Sequential.from_config(saved.config, backend=backend, precision=precision)
    averaged = {k.removeprefix(_AVERAGE): v for k, v in saved.arrays.items() if k.startswith(_AVERAGE)}
    if weights == "average" and not averaged:
        raise CheckpointError(f"{file_of(path)}: no average of the weights was kept. Load it with weights='raw'.")
    try:
        network.load_state_dict(averaged if averaged and weights != "raw" else saved.state, sound=sound)
    except InputError as error:
        raise CheckpointError(f"{file_of(path)}: {error}") from error
    network.preprocessing = saved.preprocessing
    return network


def file_of(path: Any) -> Path:
    """Return the model file in a run folder; a file is returned unchanged."""
    file = Path(path)
    return file / MODEL if file.is_dir() else file
