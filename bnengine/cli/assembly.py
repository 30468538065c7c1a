"""Build a network, a trainer and its data from settings."""

import os
from math import ceil
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np

from .._typing import Array
from ..arrays.backend import Backend, get_backend
from ..data import ArraySource, Dataset, Preprocessing, groups, load, split_dataset, task_of
from ..errors import DataError, InputError, TargetMissing
from ..layers import Activation, Dense, Dropout, Layer
from ..layers.norm.choices import NORMS
from ..losses import LOSSES, LossFunction, class_weights, get_loss, usual_loss
from ..network.precision import resolve_precision
from ..network.sequential import Sequential
from ..ops.activations import ACTIVATIONS
from ..optim.optimizers import OPTIMIZERS, Optimizer, get_optimizer
from ..optim.schedules import SCHEDULES, Schedule, from_spec
from ..runtime.modes import Mode
from ..training import Average, Callback, Checkpointing, EarlyStopping, Trainer
from ..training.replaying import has_graphs
from .settings import Settings, flag

BUILT_IN = ("digits",)
TRISTATE: dict[str, Any] = {"auto": "auto", "yes": True, "no": False}


class TrainingSetup(NamedTuple):
    """A training that is ready to run: settings without gaps, the data, and the initialized network."""

    settings: Settings
    dataset: Dataset
    preprocessing: Preprocessing
    network: Sequential
    train: ArraySource
    valid: ArraySource | None


def set_up(settings: Settings, *, fitted: Preprocessing | None = None) -> TrainingSetup:
    """Load the data, resolve the settings and build the network.

    Args:
        settings: what the user chose.
        fitted: the preprocessing of a run that resumes.

    Raises:
        InputError: settings that contradict each other, the data or the backend.
        DataError: data that cannot be used.
    """
    backend = backend_of("train", settings.backend)
    check_precision(settings, backend)
    if settings.graph == "yes" and not has_graphs(backend.name):
        raise InputError(f"train: --graph yes: the backend {backend.name} has no graphs. Take --graph auto.")
    dataset = load_data(settings.path, settings.target or None)
    settings = resolve_settings(settings, dataset, backend)
    task = get_loss(settings.loss).task
    rows, valid_rows = split_dataset(dataset, fraction=settings.validation, seed=settings.seed, task=task)
    preprocessing = Preprocessing.fit(dataset, rows, valid=valid_rows, scaling=settings.scaling, task=task)
    if fitted is not None:
        check_unchanged(preprocessing, fitted, settings.path)
        preprocessing = fitted
    options: dict[str, Any] = {"dtype": settings.dtype, "precision": settings.precision, "seed": settings.seed}
    network = Sequential(*layers_of(settings, preprocessing), backend=backend, **options)
    network.preprocessing = preprocessing
    train = source_of(dataset, preprocessing, rows, settings.dtype)
    valid = source_of(dataset, preprocessing, valid_rows, settings.dtype) if len(valid_rows) else None
    if settings.early_stopping and valid is None:
        raise InputError(
            "train: --early-stopping needs a validation loss, and --validation 0 leaves no rows for it. Leave one out."
        )
    return TrainingSetup(settings, dataset, preprocessing, network, train, valid)


def source_of(dataset: Dataset, preprocessing: Preprocessing, rows: Array | None, dtype: str) -> ArraySource:
    """A source of some rows of a data set, or of all for None, for a network of that dtype."""
    x, y, name = dataset.x, dataset.y, dataset.name
    return ArraySource(x, y, preprocessing=preprocessing, indices=rows, dtype=dtype, name=name)


def backend_of(command: str, name: str | None) -> Backend:
    """The backend of a name; errors begin with the command and --backend."""
    return get_backend(name, where=f"{command}: --backend")


def check_precision(settings: Settings, backend: Backend) -> None:
    """Raise InputError, in terms of options, if dtype or backend do not support the precision."""
    resolve_precision(settings.precision, settings.dtype, backend, where="train", spelled=flag)


def load_data(path: str, target: str | None, *, need_targets: bool = True) -> Dataset:
    """Load data; errors name the options of the command line."""
    try:
        return load(path, target=target, need_targets=need_targets)
    except TargetMissing as error:
        raise DataError(error.message("--target COLUMN")) from error


def resolve_settings(settings: Settings, dataset: Dataset, backend: Backend) -> Settings:
    """The settings with every value filled in, as config.toml stores them."""
    path = settings.path if settings.path in BUILT_IN else os.path.abspath(settings.path)
    loss = settings.loss if settings.loss != "auto" else loss_of(dataset, settings.task)
    if settings.task not in ("auto", task := get_loss(loss).task):
        raise InputError(
            f"train: --task and --loss must fit, got --task {settings.task} and --loss {loss}, which is of a {task}. "
            "Leave one of them out."
        )
    rule = OPTIMIZERS[settings.optimizer]
    weight_decay = settings.weight_decay if settings.weight_decay is not None else getattr(rule, "weight_decay", 0.0)
    rate = settings.learning_rate if settings.learning_rate is not None else rule.learning_rate
    name = settings.backend if settings.backend and settings.backend.startswith("cupy:") else backend.name
    return settings.changed(path=path, loss=loss, weight_decay=weight_decay, learning_rate=rate, backend=name)


def loss_of(dataset: Dataset, task: str) -> str:
    """The usual loss of the task, which follows from the data if it is "auto"."""
    say = "Give --task classification or --task regression"
    return usual_loss(task_of(dataset, None if task == "auto" else task, say=say)).name


def layers_of(settings: Settings, preprocessing: Preprocessing) -> list[Layer]:
    """[Dense, normalizer, Activation, Dropout] for each hidden width, and the last Dense."""
    width, outputs = preprocessing.features, get_loss(settings.loss).outputs(preprocessing.outputs)
    layers: list[Layer] = []
    weights = "glorot" if ACTIVATIONS[settings.activation].saturates else "he"
    norm = NORMS[settings.norm].make
    decay = None if isinstance(settings.bn_decay, str) else settings.bn_decay
    for hidden in settings.hidden:
        layers.append(Dense(width, hidden, weights=weights))
        if norm is not None:
            layers.append(norm(hidden, decay))
        layers.append(Activation(settings.activation))
        if settings.dropout:
            layers.append(Dropout(settings.dropout))
        width = hidden
    return [*layers, Dense(width, outputs, weights=weights)]


def trainer_of(training: TrainingSetup, *, callbacks: list[Callback], model: Path, progress: Any) -> Trainer:
    """The trainer of a training; it saves checkpoints to `model`."""
    settings = training.settings
    hooks: list[Callback] = list(callbacks)
    if settings.early_stopping:
        hooks.append(EarlyStopping(settings.early_stopping))
    hooks.append(Checkpointing(model, every_steps=settings.checkpoint_every))
    return Trainer(
        training.network,
        optimizer_of(settings),
        loss=loss_function(settings, training),
        learning_rate=schedule_of(settings, steps_per_epoch(training)),
        clip_norm=settings.clip_norm or None,
        accumulate=settings.accumulate,
        average=Average(settings.average) if settings.average else None,
        callbacks=hooks,
        progress=progress,
        graph=TRISTATE[settings.graph],
        resident=TRISTATE[settings.resident],
        threads=settings.threads,
        kernels=cast(Mode, settings.kernels),
        watch=None if settings.watch == "none" else "activations",
    )


def steps_per_epoch(training: TrainingSetup) -> int:
    """Optimizer steps of an epoch."""
    return ceil(len(groups(training.train.rows, training.settings.batch_size)) / training.settings.accumulate)


def loss_function(settings: Settings, training: TrainingSetup) -> LossFunction:
    """The loss; InputError for a label smoothing or weights of classes that it does not take."""
    takers = LOSSES.takers("label_smoothing")
    if settings.loss in takers:
        options = {"label_smoothing": settings.label_smoothing, "class_weights": _class_weights(settings, training)}
        return get_loss({"name": settings.loss, **options})
    for option in ("label_smoothing", "class_weights"):
        _refuse_option(settings, option, "loss", " or ".join(takers))
    return get_loss(settings.loss)


def _class_weights(settings: Settings, training: TrainingSetup) -> tuple[float, ...] | None:
    """The weight of each class that --class-weights gives; InputError for a label that training has not seen."""
    if settings.class_weights == "none" or training.preprocessing.classes is None:
        return None
    labels = training.preprocessing.classes.values
    given: Any = settings.class_weights
    if given != "balanced":
        pairs = [part.rpartition("=") for part in given.split(",")]
        if not all(label for label, _, _ in pairs):
            raise InputError(
                f"train: --class-weights must be none, balanced or LABEL=WEIGHT,LABEL=WEIGHT, got {given!r}."
            )
        names = {str(label): label for label in labels.tolist()}
        given = {names.get(label.strip(), label.strip()): _weight(weight) for label, _, weight in pairs}
    y = np.asarray(training.dataset.y)[training.preprocessing.parts == 1]
    return class_weights(given, labels, y, where="train: --class-weights")


def _weight(text: str) -> float | str:
    try:
        return float(text)
    except ValueError:
        return text


def optimizer_of(settings: Settings) -> Optimizer:
    """The optimizer; InputError for an option that it does not take."""
    options: dict[str, Any] = {"name": settings.optimizer}
    for option in ("momentum", "weight_decay"):
        takers = OPTIMIZERS.takers(option)
        if settings.optimizer in takers:
            options[option] = getattr(settings, option)
        else:
            _refuse_option(settings, option, "optimizer", " or ".join(takers))
    return get_optimizer(options)


def schedule_of(settings: Settings, steps: int) -> Schedule:
    """The schedule of the learning rate, for `steps` steps an epoch."""
    assert settings.learning_rate is not None
    kind = SCHEDULES[settings.schedule.replace("-", "_")]
    options: dict[str, Any] = {}
    if kind.drops_by is not None:
        every, factor = kind.drops_by
        options = {every: settings.drop_every * (1 if kind.counts_epochs else steps), factor: settings.drop_factor}
    return from_spec(settings.schedule, rate=settings.learning_rate, warm_up=settings.warm_up, **options)


def check_unchanged(now: Preprocessing, then: Preprocessing, path: str) -> None:
    """Raise InputError if the preprocessing shows that the data differ from those of the run."""
    (values, arrays), (values_then, arrays_then) = now.to_state(), then.to_state()
    equal = values == values_then and arrays.keys() == arrays_then.keys()
    equal = equal and np.array_equal(arrays["parts"], arrays_then["parts"])
    if equal and all(np.allclose(arrays[name], arrays_then[name], rtol=1e-9) for name in arrays):
        return
    raise InputError(
        f"train: the data at {path} are not those that the run was trained on: {len(then.parts)} samples, {then!r}, "
        f"got {len(now.parts)}, {now!r}. Restore the old data, or begin a new run."
    )


def _refuse_option(settings: Settings, name: str, of: str, owner: str) -> None:
    value = getattr(settings, name)
    if value and value != "none":
        raise InputError(
            f"train: {flag(name)} {value} is an option of {flag(of)} {owner}, not of {getattr(settings, of)}. "
            "Leave it out."
        )
