"""Callbacks: what happens between the steps of a training, without being part of it."""

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
MANY = 1 << 30  # steps


class TrainingRun(Protocol):
    """What the callbacks of this module use of the `Trainer` that calls them."""

    network: Sequential
    step: Step
    group: int  # steps of the epoch that are done

    def stop(self, reason: str) -> None:
        """End the training after this epoch."""

    def save(self, path: Any) -> None:
        """Write a checkpoint."""


class Callback:
    """Override what is needed; `trainer.stop(reason)` ends the training after the epoch. State that must survive a
    resumption goes through `state_dict` (JSON values) and `tensors` (NumPy arrays)."""

    name = ""  # what a checkpoint calls its state; needed only if there is any
    saves = False  # whether its turn comes after all others', whose state it writes down

    def fit_begins(self, trainer: TrainingRun) -> None:
        """Before the first epoch, or the first after a resumption."""

    def epoch_begins(self, trainer: TrainingRun, epoch: int) -> None:
        """Before the first step of an epoch, counted from 0."""

    def step_ends(self, trainer: TrainingRun) -> None:
        """After each optimizer step; reading from the device here costs time."""

    def steps_ahead(self, trainer: TrainingRun) -> int:
        """How many steps may be done at once, in one call where that can be, before `step_ends` is due: by default 1
        where a class has a `step_ends` of its own, else any number.
        """
        return MANY if type(self).step_ends is Callback.step_ends else 1

    def epoch_ends(self, trainer: TrainingRun, record: Record) -> None:
        """After validation; `record` is the epoch's line of metrics."""

    def fit_ends(self, trainer: TrainingRun) -> None:
        """After the last epoch, also when training was stopped early."""

    def interrupted(self, trainer: TrainingRun) -> None:
        """Ctrl-C came; the step before it is complete."""

    def state_dict(self) -> dict[str, Any]:
        """JSON values to resume with."""
        return {}

    def tensors(self) -> dict[str, np.ndarray]:
        """Arrays to resume with."""
        return {}

    def load(self, state: dict[str, Any], tensors: dict[str, np.ndarray]) -> None:
        """Take both over."""


class EarlyStopping(Callback):
    """Stop when `metric` has not improved by more than `margin` for `patience` epochs.

    With `restore_best` the network ends with the best epoch's weights *and* running statistics. `higher_is_better`
    is needed only for a metric that is not in `bnengine.metrics.METRICS`.
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
        self.best: float | None = None
        self.best_epoch = -1
        self.waited = 0
        self._best_state: dict[str, np.ndarray] = {}

    def epoch_ends(self, trainer: TrainingRun, record: Record) -> None:
        if self.metric not in record:
            known = ", ".join(k for k, v in record.items() if isinstance(v, float))
            raise InputError(
                f"EarlyStopping: no metric {self.metric!r}; there are {known} (validation needs validation data)"
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
    """The network's parameters and statistics, and their averages, which are what validation looked at."""
    step = trainer.step
    averages = {} if step.state.averaged is None else trainer.network.export(*step.state.averaged)
    return trainer.network.state_dict() | {f"{_AVERAGE}{name}": array for name, array in averages.items()}


def _restore(trainer: TrainingRun, state: dict[str, np.ndarray]) -> None:
    averages = {name.removeprefix(_AVERAGE): array for name, array in state.items() if name.startswith(_AVERAGE)}
    if trainer.step.state.averaged is not None:
        trainer.network.import_into(averages, *trainer.step.state.averaged)
    trainer.network.load_state_dict({name: a for name, a in state.items() if not name.startswith(_AVERAGE)})


class Checkpointing(Callback):
    """Save the trainer to `path` after every epoch, every `every_steps` steps (0: only epochs), and at Ctrl-C."""

    name = "checkpointing"
    saves = True

    def __init__(self, path: Any, *, every_steps: int = 0) -> None:
        self.path, self.every_steps = path, integer("Checkpointing", "every_steps", every_steps, least=0)

    def step_ends(self, trainer: TrainingRun) -> None:
        if self.every_steps and trainer.group % self.every_steps == 0:
            trainer.save(self.path)

    def steps_ahead(self, trainer: TrainingRun) -> int:
        return self.every_steps - trainer.group % self.every_steps if self.every_steps else MANY

    def epoch_ends(self, trainer: TrainingRun, record: Record) -> None:
        trainer.save(self.path)

    def fit_ends(self, trainer: TrainingRun) -> None:
        trainer.save(self.path)

    def interrupted(self, trainer: TrainingRun) -> None:
        trainer.save(self.path)
