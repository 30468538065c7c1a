"""Callbacks: code that a Trainer calls between the steps of a training."""

from math import isnan
from typing import Any, Protocol

import numpy as np

from ..errors import InputError
from ..metrics import facts_of
from ..network.sequential import Sequential
from ..validation import flag, integer, number
from .step import Step

Record = dict[str, Any]
_AVERAGE = "average."
UNLIMITED = 1 << 30  # steps


class TrainingRun(Protocol):
    """The part of a `Trainer` that the callbacks of this module use."""

    network: Sequential
    step: Step
    group: int  # steps of the epoch that are done

    def stop(self, reason: str) -> None:
        """End the training after this epoch."""

    def save(self, path: Any) -> None:
        """Write a checkpoint."""


class Callback:
    """Base class of callbacks: override the events you need.

    `trainer.stop(reason)` ends the training after the epoch. State that a resumed training needs goes through
    `state_dict` (JSON values), `tensors` (NumPy arrays) and `load`; `reset` forgets it, so that an object can serve one
    training after the other.

        class Print(Callback):
            def epoch_ends(self, trainer, record):
                print(record["train_loss"])

    Attributes:
        name: the key of the callback's state in a checkpoint; needed only if it has state.
        saves: whether it is called after the other callbacks, because it writes their state.
    """

    name = ""
    saves = False
    _training: object = None  # which one it serves

    def serve(self, training: object, *, begun: bool) -> None:
        """Serve a training from now on: `reset` if it is another one than before.

        Args:
            training: identifies the training.
            begun: whether the training has gone on without this callback, which could not know what it missed.
        """
        if self._training is not None and self._training is not training:
            if begun:
                raise InputError(
                    f"Trainer: this {type(self).__name__} has served another training since this one began, so what it "
                    "knows is of that one. Give each trainer separate callbacks."
                )
            self.reset()
        self._training = training

    def reset(self) -> None:
        """Forget all that was seen of another training; called when a new training begins with the same object."""

    def fit_begins(self, trainer: TrainingRun) -> None:
        """Called before the first epoch of a call of `fit`."""

    def epoch_begins(self, trainer: TrainingRun, epoch: int) -> None:
        """Called before the first step of an epoch; epochs count from 0."""

    def step_ends(self, trainer: TrainingRun) -> None:
        """Called after each optimizer step; reading from the device here takes time."""

    def steps_ahead(self, trainer: TrainingRun) -> int:
        """Return how many steps may run before the next `step_ends`, at least 1, so that one native call can run them.

        The default is 1 if a class overrides `step_ends`, else any number.
        """
        return UNLIMITED if type(self).step_ends is Callback.step_ends else 1

    def epoch_ends(self, trainer: TrainingRun, record: Record) -> None:
        """Called after the epoch's validation; `record` holds the metrics of the epoch, and may be extended."""

    def fit_ends(self, trainer: TrainingRun) -> None:
        """Called after the last epoch, also if `stop` ended the training."""

    def interrupted(self, trainer: TrainingRun) -> None:
        """Called at Ctrl-C, after the running step is complete."""

    def state_dict(self) -> dict[str, Any]:
        """Return the state to resume with, as JSON values."""
        return {}

    def tensors(self) -> dict[str, np.ndarray]:
        """Return the state to resume with, as NumPy arrays by name."""
        return {}

    def load(self, state: dict[str, Any], tensors: dict[str, np.ndarray]) -> None:
        """Load what `state_dict` and `tensors` returned."""


class EarlyStopping(Callback):
    """Stops a training when a metric no longer improves.

    Args:
        patience: stop after this many epochs without an improvement.
        metric: an entry of the epochs' records, such as "valid_loss" or "train_accuracy".
        margin: the least change that counts as an improvement.
        restore_best: end with the weights and running statistics of the best epoch.
        higher_is_better: needed only for a metric that is not in `bnengine.metrics.METRICS`.

    Raises:
        InputError: a wrong argument; at the end of an epoch, no such metric.
    """

    name = "early_stopping"

    def __init__(
        self,
        patience: int = 5,
        *,
        metric: str = "valid_loss",
        margin: float = 0.0,
        restore_best: bool = True,
        higher_is_better: bool | None = None,
    ) -> None:
        self.patience = integer("EarlyStopping", "patience", patience, least=1)
        self.margin = number("EarlyStopping", "margin", margin, least=0)
        self.metric, self.restore_best = metric, flag("EarlyStopping", "restore_best", restore_best)
        if higher_is_better is None:
            part, _, name = metric.partition("_")
            higher_is_better = facts_of(name).higher_is_better if part in ("train", "valid") else False
        cure = f"{metric!r} is not in METRICS, so say which of two values is better."
        self.higher = flag("EarlyStopping", "higher_is_better", higher_is_better, cure=cure)
        self.reset()

    def reset(self) -> None:
        self.best: float | None = None
        self.best_epoch = -1
        self.waited = 0
        self._best_state: dict[str, np.ndarray] = {}

    def epoch_ends(self, trainer: TrainingRun, record: Record) -> None:
        if self.metric not in record:
            known = ", ".join(k for k, v in record.items() if isinstance(v, float))
            raise InputError(
                f"EarlyStopping: the metric must be one of {known}, got {self.metric!r}. valid_... "
                "need validation data."
            )
        value = float(record[self.metric])
        if self._improves(value):
            self.best, self.best_epoch, self.waited = value, record["epoch"], 0
            if self.restore_best:
                self._best_state = _weights(trainer)
            return
        self.waited += 1
        if self.waited >= self.patience:
            best = "it never was a number" if self.best is None else f"best {self.best:.4g} at {self.best_epoch}"
            trainer.stop(f"{self.metric} has not improved for {self.waited} epochs; {best}")

    def _improves(self, value: float) -> bool:
        if isnan(value) or self.best is None:
            return not isnan(value)
        return (value - self.best) * (1 if self.higher else -1) > self.margin

    def fit_ends(self, trainer: TrainingRun) -> None:
        if self._best_state:
            _restore(trainer, self._best_state)

    def state_dict(self) -> dict[str, Any]:
        return {"best": self.best, "best_epoch": self.best_epoch, "waited": self.waited}

    def tensors(self) -> dict[str, np.ndarray]:
        return dict(self._best_state)

    def load(self, state: dict[str, Any], tensors: dict[str, np.ndarray]) -> None:
        self.best, self.best_epoch, self.waited = state["best"], state["best_epoch"], state["waited"]
        self._best_state = dict(tensors)


def _weights(trainer: TrainingRun) -> dict[str, np.ndarray]:
    """Return the network's parameters and statistics, and their averages, which validation evaluated."""
    step = trainer.step
    averages = {} if step.state.averaged is None else trainer.network.export(*step.state.averaged)
    return trainer.network.state_dict() | {f"{_AVERAGE}{name}": array for name, array in averages.items()}


def _restore(trainer: TrainingRun, state: dict[str, np.ndarray]) -> None:
    averages = {name.removeprefix(_AVERAGE): array for name, array in state.items() if name.startswith(_AVERAGE)}
    if trainer.step.state.averaged is not None:
        trainer.network.import_into(averages, *trainer.step.state.averaged)
    trainer.network.load_state_dict({name: a for name, a in state.items() if not name.startswith(_AVERAGE)})


class Checkpointing(Callback):
    """Saves a checkpoint after every epoch, at the end and at Ctrl-C.

    Args:
        path: the file, or a run folder.
        every_steps: save also after this many steps of an epoch; 0 for never.

    Raises:
        InputError: `every_steps` is not an integer of at least 0.
    """

    name = "checkpointing"
    saves = True

    def __init__(self, path: Any, *, every_steps: int = 0) -> None:
        self.path, self.every_steps = path, integer("Checkpointing", "every_steps", every_steps, least=0)

    def step_ends(self, trainer: TrainingRun) -> None:
        if self.every_steps and trainer.group % self.every_steps == 0:
            trainer.save(self.path)

    def steps_ahead(self, trainer: TrainingRun) -> int:
        return self.every_steps - trainer.group % self.every_steps if self.every_steps else UNLIMITED

    def epoch_ends(self, trainer: TrainingRun, record: Record) -> None:
        trainer.save(self.path)

    def fit_ends(self, trainer: TrainingRun) -> None:
        trainer.save(self.path)

    def interrupted(self, trainer: TrainingRun) -> None:
        trainer.save(self.path)
