"""What is known of the training behind a network."""

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from math import ceil, sqrt
from typing import Any, Self

from ...errors import InputError
from ...ops.update import STEPS
from ...optim.optimizers import Optimizer, get_optimizer
from ...storage.saving import Saved
from ...training import Trainer

USUAL_BATCH, USUAL_DECAY = 64, 0.9


@dataclass(frozen=True)
class Known:
    """Figures of a training, None for unknown.

    `steps`: successful ones. `batch_size`: rows of a micro-batch, which is what BN sees; `accumulate` of them make a
    step. `rows`: of the training data. `learning_rate`: the largest. `travelled`: the sum of the learning rates of all
    steps.
    `decayed`: the parameters that weight decay was on, by name; None: those whose handles say so.
    `recalibrated`: the running statistics are exact ones, and no average over the steps.
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
        """From a trainer or a checkpoint, with what `settings` says by hand in place of it; InputError."""
        known = cls()
        if isinstance(training, Trainer):
            known = cls._of_trainer(training)
        elif isinstance(training, Saved):
            known = cls._of_saved(training)
        elif training is not None:
            raise InputError(
                f"doctor: training is a {type(training).__name__}; give a Trainer, what "
                "bnengine.storage.saving.read returns, or None with settings"
            )
        return known._with(dict(settings or {}))

    @classmethod
    def _of_trainer(cls, trainer: Trainer) -> Self:
        report = trainer.step.report()
        rates = trainer.schedule.for_steps(0, report.steps) if report.steps else [0.0]
        counted = trainer.group == 0 and report.steps > 0 and report.skipped == 0  # rows of the last epoch are all rows
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

    def _with(self, given: dict[str, Any]) -> Self:
        names = [field.name for field in fields(self) if field.name != "decayed"]
        if unknown := sorted(given.keys() - set(names)):
            raise InputError(f"doctor: settings has no {unknown[0]!r}; it takes {', '.join(names)}")
        if "optimizer" in given:
            given["optimizer"] = get_optimizer(given["optimizer"])
        for name, value in given.items():
            if name != "optimizer" and not (isinstance(value, int | float) and value >= 0):
                raise InputError(f"doctor: settings: {name} {value!r} is not a number from 0 up")
        known = replace(self, **given)
        if {"steps", "learning_rate"} & given.keys() and "travelled" not in given:
            steps, rate = known.steps, known.learning_rate
            known = replace(known, travelled=None if steps is None or rate is None else steps * rate)
        return known

    @property
    def weight_decay(self) -> float:
        """The optimizer's, 0 where there is none."""
        return float(getattr(self.optimizer, "weight_decay", 0.0))

    @property
    def gathered(self) -> float:
        """What momentum makes of a rate: a velocity v <- momentum v + g adds up to g/(1 - momentum)."""
        return 1 / (1 - float(getattr(self.optimizer, "momentum", 0.0)))

    @property
    def shrunk(self) -> float:
        """How far weight decay has shrunk what nothing opposed, in the logarithm; 0 where that is not known."""
        return self.weight_decay * self.gathered * (self.travelled or 0.0)

    @property
    def adaptive(self) -> bool:
        """Whether the size of a step does not follow the gradient's, as in Adam and RMSprop."""
        return self.optimizer is not None and self.optimizer.scale_free

    @property
    def last_batch(self) -> int | None:
        """Rows of the last batch of an epoch; one alone joins the batch before it."""
        if not self.rows or not self.batch_size:
            return None
        rest = self.rows % self.batch_size
        if self.rows <= self.batch_size:
            return self.rows
        return self.batch_size + rest if rest <= 1 else rest

    @property
    def rows_a_step(self) -> float | None:
        """The mean over an epoch."""
        if not self.rows or not self.batch_size:
            return None
        return self.rows / ceil(self.rows / (self.batch_size * self.accumulate))

    def noise(self, decay: float | None) -> float:
        """The standard error of a running mean, in standard deviations of its channel.

        sqrt((1 - d) / ((1 + d) m)): batch means have the variance 1/m, and weights (1 - d) d^k have a sum of squares of
        (1 - d)/(1 + d). That of a running standard deviation is this over sqrt(2). With 0.9 and 64 rows where they are
        unknown, 0.029.
        """
        d = USUAL_DECAY if decay is None else decay
        return sqrt((1 - d) / ((1 + d) * (self.batch_size or USUAL_BATCH)))
