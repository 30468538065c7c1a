"""Facts about the training of a network."""

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from math import ceil, sqrt
from typing import Any, Self

from ... import validation
from ...errors import InputError
from ...ops.update import STEPS
from ...optim.optimizers import Optimizer, get_optimizer
from ...storage.saving import Saved
from ...training import Trainer

USUAL_BATCH, USUAL_DECAY = 64, 0.9


@dataclass(frozen=True)
class TrainingFacts:
    """Facts about a training; None if unknown.

    steps: the successful ones. batch_size: rows of a micro-batch, which BN normalizes. accumulate: micro-batches of a
    step. rows: of the training data. learning_rate: the largest. travelled: the sum of the learning rates of all steps.
    decayed: the names of the parameters with weight decay; None: those whose handles say so. recalibrated: the running
    statistics are exact, and not an average over the steps.
    """

    steps: int | None = None
    batch_size: int | None = None
    accumulate: int = 1
    rows: int | None = None
    optimizer: Optimizer | None = None
    learning_rate: float | None = None
    travelled: float | None = None
    recalibrated: bool = False
    decayed: tuple[str, ...] | None = None

    @classmethod
    def of(cls, training: Trainer | Saved | None, settings: Mapping[str, Any] | None) -> Self:
        """Facts of a trainer or a checkpoint, overridden by `settings`; InputError for anything else."""
        facts = cls()
        if isinstance(training, Trainer):
            facts = cls._of_trainer(training)
        elif isinstance(training, Saved):
            facts = cls._of_saved(training)
        elif training is not None:
            raise InputError(
                f"doctor: training must be a Trainer or a saved one, got a {type(training).__name__}. Give the "
                "Trainer, the result of bnengine.storage.saving.read, or None with settings."
            )
        return facts._with(dict(settings or {}))

    @classmethod
    def _of_trainer(cls, trainer: Trainer) -> Self:
        report = trainer.step.report()
        rates = trainer.schedule.for_steps(0, report.steps) if report.steps else [0.0]
        counted = trainer.group == 0 and report.steps > 0 and report.skipped == 0  # the last epoch counted all rows
        return cls(
            report.steps, trainer.batch_size or None, trainer.accumulate,
            trainer.step.totals().rows if counted else None, trainer.optimizer, max(rates), sum(rates),
        )  # fmt: skip

    @classmethod
    def _of_saved(cls, saved: Saved) -> Self:
        rows = None if saved.preprocessing is None else len(saved.preprocessing.train_indices)
        values = saved.training
        if values is None:
            return cls(rows=rows, recalibrated=saved.recalibrated)
        history = [r for r in values["history"] if isinstance(r.get("learning_rate"), float)]
        travelled, before = 0.0, 0
        for record in history:
            travelled, before = travelled + record["learning_rate"] * (record["steps"] - before), record["steps"]
        return cls(
            int(saved.arrays["step.counters"][STEPS]), values["batch_size"] or None, values["accumulate"], rows,
            get_optimizer(values["optimizer"]), max((r["learning_rate"] for r in history), default=None),
            travelled if history else None, saved.recalibrated,
            tuple(values["decayed"]) if "decayed" in values else None,
        )  # fmt: skip

    def _with(self, values: dict[str, Any]) -> Self:
        names = [field.name for field in fields(self) if field.name != "decayed"]
        if unknown := sorted(values.keys() - set(names)):
            raise InputError(f"doctor: settings has no {unknown[0]!r}. It takes {', '.join(names)}.")
        if "optimizer" in values:
            values["optimizer"] = get_optimizer(values["optimizer"])
        for name, value in values.items():
            if name == "recalibrated":
                validation.choice("doctor: settings", name, value, (True, False))
            elif name != "optimizer":
                validation.number("doctor: settings", name, value, least=0)
        facts = replace(self, **values)
        if {"steps", "learning_rate"} & values.keys() and "travelled" not in values:
            steps, rate = facts.steps, facts.learning_rate
            facts = replace(facts, travelled=None if steps is None or rate is None else steps * rate)
        return facts

    @property
    def weight_decay(self) -> float:
        """The weight decay of the optimizer, 0 without one."""
        return float(getattr(self.optimizer, "weight_decay", 0.0))

    @property
    def gathered(self) -> float:
        """The factor of momentum on a rate: a velocity v <- momentum v + g sums to g/(1 - momentum)."""
        return 1 / (1 - float(getattr(self.optimizer, "momentum", 0.0)))

    @property
    def shrunk(self) -> float:
        """How much weight decay shrinks a value without gradients, as a logarithm; 0 if unknown."""
        return self.weight_decay * self.gathered * (self.travelled or 0.0)

    @property
    def adaptive(self) -> bool:
        """Whether the size of a step does not depend on that of the gradient, as in Adam and RMSprop."""
        return self.optimizer is not None and self.optimizer.scale_free

    @property
    def last_batch(self) -> int | None:
        """Rows of the last batch of an epoch; a single row joins the batch before."""
        if not self.rows or not self.batch_size:
            return None
        rest = self.rows % self.batch_size
        if self.rows <= self.batch_size:
            return self.rows
        return self.batch_size + rest if rest <= 1 else rest

    @property
    def rows_a_step(self) -> float | None:
        """The mean number of rows of a step, over an epoch."""
        if not self.rows or not self.batch_size:
            return None
        return self.rows / ceil(self.rows / (self.batch_size * self.accumulate))

    def noise(self, decay: float | None) -> float:
        """The standard error of a running mean, in standard deviations of its channel: sqrt((1 - d) / ((1 + d) m)).

        Batch means have the variance 1/m, and the squares of the weights (1 - d) d^k sum to (1 - d)/(1 + d). The
        standard error of a running standard deviation is this over sqrt(2). Unknown values count as 0.9 and 64 rows:
        0.029.
        """
        d = USUAL_DECAY if decay is None else decay
        return sqrt((1 - d) / ((1 + d) * (self.batch_size or USUAL_BATCH)))
