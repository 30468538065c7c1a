"""Trainer: epochs of training steps over data, with validation, callbacks and exact resumption."""

from collections.abc import Callable, Sequence
from functools import partial
from math import ceil
from time import perf_counter
from typing import Any, Literal, get_args

import numpy as np

from ..data import ArraySource, Batch, IterableSource, Preprocessing, Source, as_source, groups, order
from ..errors import CheckpointError, InputError, TrainingFailed
from ..fused import threads as pool
from ..losses import LossFunction, get_loss
from ..metrics import Metric
from ..network.sequential import Sequential
from ..optim.optimizers import Optimizer, get_optimizer
from ..optim.schedules import Observer, Schedule, get_schedule
from ..runtime.modes import MODES, Mode, current_mode, using
from ..storage.codec import as_lists, decode, encode
from ..storage.saving import read, save
from ..validation import choice, integer
from .activations import Activations, get_activations
from .averaging import averaged_weights, recompute_statistics
from .callbacks import Callback, Record
from .diagnosis import first_non_finite
from .evaluation import evaluate
from .footprint import explain_oom
from .interrupts import deferred_interrupt
from .progress import Progress, ProgressStyle, progress
from .replaying import Graph, described
from .resident import Resident, load_resident
from .rows import HostRows, Rows
from .scaling import LossScaleOption, not_counted, skip_effect
from .state import Average, Report
from .step import Step

MAX_SKIPS_IN_A_ROW = 10
READ_EVERY = 50  # steps between host reads on a GPU, where a read waits for the device
# Arguments of a Trainer that its step is built from.
_BUILT_IN = frozenset(
    (
        *("network", "optimizer", "loss", "clip_norm", "statistics", "average"),
        *("graph", "threads", "kernels", "loss_scale", "watch"),
    )
)


def _preprocessing_of(source: Source | None) -> Preprocessing | None:
    return source.preprocessing if isinstance(source, (ArraySource, IterableSource)) else None


class Trainer:
    """Trains a network: `fit`, `evaluate`, `save`, `resume`.

        trainer = Trainer(network, "adam", learning_rate=0.005)
        trainer.fit((x, y), epochs=20, validation=(x_valid, y_valid))

    Args:
        network: the network; `fit` changes its parameters and running statistics.
        optimizer: an object such as `bnengine.Adam()`, a name, or a configuration {"name": ..., option: value}.
        loss: likewise.
        learning_rate: a number, or a schedule of `bnengine.schedules`; one that depends on metrics is copied, and the
            trainer's `schedule` holds its state.
        clip_norm: scale gradients so that their global norm is at most this; None for never.
        accumulate: micro-batches of an optimizer step.
        statistics: merge those of the micro-batches exactly into one update ("merged"), or commit them one after the
            other ("per_micro_batch"), as other frameworks do.
        average: an `Average`, to keep an average of the weights.
        callbacks: called between steps; see `Callback`. One that has served another training begins anew.
        progress: "bar", "plain", "quiet"; "auto" for "bar" on a terminal, else "plain".
        graph: whether a step is replayed as one CUDA graph; True raises if that is impossible, "auto" reports it.
        resident: whether all training data are kept in the device's memory. "auto" keeps them on a GPU if they take at
            most half of its free memory, and else uploads a step's rows while the GPU computes; on NumPy arrays it lets
            native kernels gather rows from the data, also raw rows from a mapped file, without a copy.
        threads: of native kernels, see `bnengine.threads.set`; None to keep the number. No result depends on it.
        kernels: "auto" runs the fused version of each op that has one, "fused" makes a fallback an error, "reference"
            runs `bnengine.ops` as written, in training and evaluation.
        loss_scale: a `LossScale`; "auto" for one in precision "float16", a number for a constant scale, None for none.
        watch: "activations" or an `Activations`, to record distributions of activations on a few steps.

    Attributes:
        history: the records of all epochs: a dict each, with losses, metrics, learning rate and times.
        epoch: the epoch that runs, or that comes next.

    Raises:
        InputError: a wrong argument.
    """

    def __init__(
        self,
        network: Sequential,
        optimizer: Optimizer | str | dict[str, Any] = "adam",
        *,
        loss: LossFunction | str | dict[str, Any] = "softmax_cross_entropy",
        learning_rate: float | Schedule = 1e-3,
        clip_norm: float | None = None,
        accumulate: int = 1,
        statistics: Literal["merged", "per_micro_batch"] = "merged",
        average: Average | None = None,
        callbacks: Sequence[Callback] = (),
        progress: ProgressStyle = "auto",
        graph: Graph = "auto",
        resident: Literal["auto"] | bool = "auto",
        threads: int | None = None,
        kernels: Mode = "auto",
        loss_scale: LossScaleOption = "auto",
        watch: Literal["activations"] | Activations | None = None,
    ) -> None:
        accumulate = integer("Trainer", "accumulate", accumulate, least=1)
        resident = choice("Trainer", "resident", resident, ("auto", True, False))
        choice("Trainer", "progress", progress, get_args(ProgressStyle))
        kernels = choice("Trainer", "kernels", kernels, MODES)
        if threads is not None:
            pool.set(threads)
        self.kernels = current_mode() if kernels == "auto" else kernels
        self.network, self.loss, self.optimizer = network, get_loss(loss), get_optimizer(optimizer)
        self.schedule: Schedule = get_schedule(learning_rate)
        self.activations = get_activations(watch)
        first = [] if self.activations is None else [self.activations]  # other callbacks read what it records
        self.accumulate, self.callbacks, self.progress = accumulate, [*first, *callbacks], progress
        with using(self.kernels):
            self.step = Step(
                network, self.optimizer, self.loss,
                clip_norm=clip_norm, statistics=statistics, average=average, graph=graph, loss_scale=loss_scale,
            )  # fmt: skip
        self.keeps_data = resident
        self.resident: Resident | None = None  # the training data, if they are kept in memory
        self.epoch = 0
        self.group = 0  # steps of the epoch that are done
        self.history: list[Record] = []
        self.stopping = ""
        self.batch_size = 0
        self._reported = set[str]()
        self._resolved = self._loaded = False
        self._identity = object()

    # -- fit ----------------------------------------------------------------------------------------------------------

    def fit(
        self,
        train: Any,
        *,
        epochs: int,
        batch_size: int = 64,
        validation: Any = None,
        metrics: Sequence[Metric] | None = None,
    ) -> list[Record]:
        """Train until `epochs` epochs are done.

        Called again with more epochs, it continues. Seed and epoch determine the order of the rows. Ctrl-C ends it
        between two steps. A training that had stopped early when its state was loaded stays stopped; a second call
        continues it.

        Args:
            train: a Source; (x, y) or (x, y, weights); an iterable of such batches, or a callable that returns one.
                Arrays hold ready features; raw data need an `ArraySource` with a preprocessing.
            epochs: the number of epochs in total, with those of earlier calls.
            batch_size: rows of a micro-batch.
            validation: data to evaluate after each epoch, as `train`; None for none.
            metrics: of the validation; None for accuracy, or the mean absolute error of a regression.

        Returns:
            The records of all epochs.

        Raises:
            InputError: a wrong argument.
            DataError: data that are not usable.
            TrainingFailed: ten steps in a row were not finite, or memory ran out; the message names the first layer at
                fault. Steps that only lower a loss scale above 1 do not count.
        """
        source = as_source(train, self.network.dtype, "train")
        valid = as_source(validation, self.network.dtype, "validation")
        if source is None:
            raise InputError("fit: there is no training data. Pass a Source, or arrays (x, y).")
        epochs = integer("fit", "epochs", epochs, least=0)
        batch_size = integer("fit", "batch_size", batch_size, least=1)
        self._check(batch_size, source, valid)
        for callback in self.callbacks:
            callback.serve(self._identity, begun=bool(self.epoch or self.group))
        prepared = _preprocessing_of(source)
        self._check_prepared("fit", prepared)
        if prepared is not None:
            self._check_prepared("fit: validation", _preprocessing_of(valid), prepared)
            self.network.preprocessing = prepared
        self.batch_size, self.stopping, self._loaded = batch_size, self.stopping if self._loaded else "", False
        steps = self.steps_per_epoch(source)
        self._resolve(steps, epochs)
        self.network.refresh()
        self.resident = load_resident(source, self.step.inputs, self.keeps_data, self.resident)
        self._check_schedule(epochs)
        shown = progress(self.progress)
        shown.start(epochs, steps)
        if self.epoch >= epochs:
            done = f"{self.epoch} epochs are done, and epochs={epochs} asks for that many in total"
            shown.message(f"nothing to train: {done}. Pass a larger number to go on")
        try:
            with using(self.kernels), deferred_interrupt() as interrupted:
                self._each("fit_begins")
                while self.epoch < epochs and not self.stopping:
                    self._epoch(source, valid, shown, interrupted, metrics)
                if self.stopping:
                    shown.message(f"stopped: {self.stopping}")
                self._each("fit_ends")
                self._heed(interrupted)
        finally:
            shown.stop()
        return self.history

    def stop(self, reason: str) -> None:
        """End `fit` after this epoch; `reason` is shown."""
        self.stopping = reason

    def _check(self, batch_size: int, source: Source, valid: Source | None) -> None:
        if source.rows is None and not isinstance(source, IterableSource):
            raise InputError(f"fit: {source!r} does not know its number of rows. Use an IterableSource for batches.")
        if valid is not None and valid.rows == 0:
            raise InputError("fit: the validation data has no rows. Pass at least one, or validation=None.")
        if self.group and source.rows is not None and batch_size != self.batch_size:
            raise InputError(
                f"fit: resuming inside an epoch that used batch_size={self.batch_size}, got {batch_size}. Call "
                f"fit(batch_size={self.batch_size})."
            )

    def steps_per_epoch(self, source: Source) -> int | None:
        """Return the optimizer steps of an epoch; None if the source does not know its length."""
        if source.rows is None:
            return None
        return ceil(len(groups(source.rows, self.batch_size)) / self.accumulate)

    def _resolve(self, steps: int | None, epochs: int) -> None:
        """Set the length of a schedule that spans the training."""
        if steps is not None and epochs and not self._resolved:
            self.schedule = self.schedule.resolved(steps * epochs)
            self._resolved = True

    def _check_prepared(self, where: str, data: Preprocessing | None, model: Preprocessing | None = None) -> None:
        """Refuse data whose classes or scaling are not those of the model (None: the network's)."""
        model = self.network.preprocessing if model is None else model
        if data is not None and model is not None:
            cure = "Give them the model's preprocessing, network.preprocessing"
            own = cure if where != "fit" else f"{cure}, or set that to None to train for other data"
            model.check_same(data, where, f"{own}.")

    def _check_schedule(self, epochs: int) -> None:
        """Refuse to train past the end of a schedule, at a rate that may be 0."""
        end: int | None = getattr(self.schedule, "end", None)
        if end is None or self.group or self.epoch >= epochs or (done := self.step.report().steps) < end:
            return
        raise InputError(
            f"fit: the schedule {self.schedule!r} ended after {end} steps, got {epochs - self.epoch} more epochs, "
            f"which would train at a rate of {self.schedule.rate(done):.3g}. Set trainer.learning_rate for them, to a "
            "number or a schedule, or pass all epochs to one call of fit."
        )

    @property
    def learning_rate(self) -> float:
        """The rate of the next step.

        Set it to a number or a schedule, which counts the steps of the whole training: it takes effect with the next
        epoch.
        """
        return self.schedule.rate(self.step.report().steps)

    @learning_rate.setter
    def learning_rate(self, rate: float | Schedule) -> None:
        self.schedule, self._resolved = get_schedule(rate), False

    def __setattr__(self, name: str, value: Any) -> None:
        if name in _BUILT_IN and "_identity" in vars(self):
            raise InputError(
                f"Trainer: {name} counts only when the trainer is made, got {value!r} afterwards. Make a new Trainer."
            )
        super().__setattr__(name, value)

    def _each(self, event: str, *args: Any) -> None:
        for callback in sorted(self.callbacks, key=lambda c: c.saves):
            getattr(callback, event)(self, *args)

    def _heed(self, interrupted: Callable[[], bool]) -> None:
        if interrupted():
            self._each("interrupted")
            raise KeyboardInterrupt

    def _epoch(self, source: Source, valid: Source | None, shown: Progress, interrupted: Any, metrics: Any) -> None:
        steps = self.steps_per_epoch(source)
        shown.epoch(self.epoch)
        if self.group == 0:
            self.step.state.start_epoch()
        self._each("epoch_begins", self.epoch)
        report = self.step.report()
        left = READ_EVERY if steps is None else max(1, steps - self.group)
        self.step.schedule(self.schedule.for_steps(report.steps, left))
        started, seen, skipped, first = perf_counter(), 0, report.skipped, self.group
        rows = self._rows(source)
        while rows.steps_alike:
            if steps is None and self.group > first and (self.group - first) % READ_EVERY == 0:
                self.step.schedule(self.schedule.for_steps(self.step.report().steps, READ_EVERY))
            size = sum(rows.sizes)
            done = self._run(rows)
            self.group += done
            seen += done * size
            if self._reads_now():
                report = self._read(partial(rows.batches, -1), shown, skipped)
                skipped = report.skipped
                seconds = perf_counter() - started
                shown.advance(self.group, report.loss, self.schedule.rate(report.steps), seen / max(seconds, 1e-9))
            self._each("step_ends")
            self._heed(interrupted)
        self._end_epoch(source, valid, shown, metrics, perf_counter() - started, seen, skipped)
        self._heed(interrupted)

    def _end_epoch(
        self, source: Source, valid: Source | None, shown: Progress, metrics: Any, seconds: float, rows: int,
        skipped: int,
    ) -> None:  # fmt: skip
        report, totals = self._read(None, shown, skipped), self.step.totals()
        recompute_statistics(self.step, source, self.batch_size)
        record: Record = {
            "epoch": self.epoch,
            "steps": report.steps,
            "learning_rate": self.schedule.rate(max(report.steps - 1, 0)),
            "train_loss": totals.loss,
        }
        if totals.accuracy is not None:
            record["train_accuracy"] = totals.accuracy
        if valid is not None:
            measured = self.evaluate(valid, metrics=metrics)
            record |= {f"valid_{name}": value for name, value in measured.items()}
        record |= {"gradient_norm": report.norm, "skipped_steps": report.skipped}
        record |= {} if report.loss_scale is None else {"loss_scale": report.loss_scale}
        if isinstance(self.schedule, Observer):
            self.schedule.observe(self._monitored(self.schedule, record))
        record |= {"seconds": seconds, "samples_per_second": rows / max(seconds, 1e-9)}
        self.history.append(record)
        self.epoch, self.group = self.epoch + 1, 0
        self._each("epoch_ends", record)
        shown.end_epoch(record)

    def _monitored(self, schedule: Observer, record: Record) -> float:
        """Return the metric that a schedule monitors: of the validation, or of the training if there is none."""
        metric = schedule.watches
        values = [record[name] for name in (f"valid_{metric}", f"train_{metric}") if name in record]
        if not values:
            raise InputError(
                f"fit: {schedule!r} monitors the {metric}, which a {self.loss.task} lacks. Monitor the loss."
            )
        return float(values[0])

    def _rows(self, source: Source) -> Rows:
        """Return the remaining rows of this epoch."""
        inputs = self.step.inputs
        if isinstance(source, IterableSource):
            batches = source.epoch(skip=self.group * self.accumulate)
            return HostRows.from_batches(inputs, batches, self.accumulate)
        assert source.rows is not None
        positions = order(source.rows, seed=self.network.seed, epoch=self.epoch)
        micro = groups(source.rows, self.batch_size)
        steps = [micro[i : i + self.accumulate] for i in range(0, len(micro), self.accumulate)]
        if self.resident is None:
            return HostRows.over(inputs, source, positions, steps[self.group :])
        self.resident.start(positions, steps, self.group)
        return self.resident

    def _run(self, rows: Rows) -> int:
        """Run a step, or as many as one native call can before a callback is due; return how many."""
        with explain_oom(self.network, max(rows.sizes), self.accumulate):
            if self.activations is not None:
                self.activations.step_begins(self, rows)
            ahead = min((callback.steps_ahead(self) for callback in self.callbacks), default=rows.steps_alike)
            done = self.step.next(rows, ahead)
            if self.activations is not None:
                self.activations.done += done
            return done

    def _reads_now(self) -> bool:
        return not self.network.backend.on_gpu or self.group % READ_EVERY == 0

    def _read(self, batches: Callable[[], list[Batch]] | None, shown: Progress, skipped: int) -> Report:
        """Read the counters; report skipped steps, and raise TrainingFailed after ten in a row."""
        report = self.step.report()
        self._report_modes(shown)
        new, last = report.skipped - skipped, report.steps + report.skipped
        if new == 1 and not report.ok:
            shown.message(
                f"step {last} of the training was not finite and was skipped: {skip_effect(report.loss_scale)}"
            )
        elif new:
            shown.message(
                f"{new} of the steps up to step {last} of the training were not finite and were skipped: "
                f"{skip_effect(report.loss_scale)}"
            )
        if report.longest_skip >= MAX_SKIPS_IN_A_ROW:
            self.step.state.forget_skips()  # a caller may catch the error, remove its cause and call fit again
            where = self._find_fault(batches()) if batches else "the batch is unknown"
            raise TrainingFailed(
                f"fit: {report.longest_skip} steps in a row were not finite{not_counted(report.loss_scale)}; {where}. "
                "The network is unchanged by them. Lower the learning rate, clip the gradients (clip_norm), or check "
                "the data."
            )
        return report

    def _report_modes(self, shown: Progress) -> None:
        """Report once why steps do not run as one graph or native call, unless the user chose so."""
        if self.step.graph is False or self.kernels == "reference":
            return
        for line in map(described, self.step.modes()):
            if line and line not in self._reported:
                self._reported.add(line)
                shown.message(line)

    def _find_fault(self, batches: list[Batch]) -> str:
        faults = [first_non_finite(self.step, batch) for batch in batches]
        return next(filter(None, faults), "the cause is unknown: the step was finite when repeated")

    # -- evaluate -----------------------------------------------------------------------------------------------------

    def evaluate(
        self, data: Any, *, batch_size: int = 1024, metrics: Sequence[Metric] | None = None
    ) -> dict[str, float]:
        """Compute loss and metrics in evaluation mode, by the averaged weights if an `Average` is kept.

        Args:
            data: as `train` of `fit`.
            batch_size: rows that run at once.
            metrics: None for accuracy, or the mean absolute error of a regression.

        Returns:
            {"loss": mean loss, name of a metric: its value, ...}
        """
        source = as_source(data, self.network.dtype, "evaluate")
        if source is None:
            raise InputError("evaluate: there is no data. Pass a Source, or arrays (x, y).")
        self._check_prepared("evaluate", _preprocessing_of(source))
        with using(self.kernels), averaged_weights(self.step):
            return evaluate(self.network, self.loss, source, batch_size=batch_size, metrics=metrics)

    # -- state --------------------------------------------------------------------------------------------------------

    def save(self, path: Any) -> None:
        """Write a checkpoint from which `resume` continues: network, optimizer, counters, schedule, callbacks.

        Args:
            path: the file, or a run folder.

        Raises:
            CheckpointError: the file cannot be written; the old one is intact.
        """
        save(path, self.network, trainer=self)

    def resume(self, path: Any) -> None:
        """Load network and training from a checkpoint of `save`; `fit` then continues bit for bit.

        The trainer must have the same arguments, and `fit` must get the same data.

        Args:
            path: the file, or a run folder.

        Raises:
            CheckpointError: the file cannot be read, or holds no training or another network.
            InputError: the trainer has other arguments.
        """
        saved = read(path)
        if saved.training is None:
            raise CheckpointError(f"{path}: holds a network without a training. Load it with bnengine.load.")
        config = as_lists(self.network.config())
        if differ := [what for what, value in saved.config.items() if value != config[what]]:
            raise CheckpointError(
                f"{path}: the saved network has other {', '.join(differ)}: {saved.config[differ[0]]}; the trainer's "
                f"network has {config[differ[0]]}. Build it as it was saved."
            )
        self.load_state(saved.arrays, saved.training)
        self.network.load_state_dict(saved.state)
        self.network.preprocessing = saved.preprocessing

    def state(self) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Return (arrays, JSON values): what `load_state` needs besides the network's state.

        Times are left out, so equal trainings have equal states.
        """
        arrays = {f"step.{name}": array for name, array in self.step.state_dict().items()}
        callbacks: dict[str, Any] = {}
        for callback in self.callbacks:
            state, tensors = callback.state_dict(), callback.tensors()
            if not (state or tensors):
                continue
            if not callback.name or callback.name in callbacks:
                raise InputError(
                    f"Trainer: the state of a {type(callback).__name__} called {callback.name!r} cannot be saved. Give "
                    "it a `name` that no other callback has."
                )
            callbacks[callback.name] = state
            arrays |= {f"callback.{callback.name}.{name}": array for name, array in tensors.items()}
        values = {
            "epoch": self.epoch,
            "group": self.group,
            "batch_size": self.batch_size,
            "accumulate": self.accumulate,
            "stopping": self.stopping,
            "history": [
                {k: encode(v) for k, v in r.items() if k not in ("seconds", "samples_per_second")} for r in self.history
            ],
            "loss": self.loss.config(),
            "optimizer": self.optimizer.config(),
            "decayed": self.network.decayed,
            "schedule": self.schedule.state_dict() if isinstance(self.schedule, Observer) else {},
            "callbacks": encode(callbacks),
        }
        return arrays, values

    def load_state(self, arrays: dict[str, np.ndarray], values: dict[str, Any]) -> None:
        """Load what `state` returned; InputError if the trainer has other arguments."""
        options: dict[str, Any] = {"loss": self.loss.config(), "optimizer": self.optimizer.config()}
        if values["group"]:  # inside an epoch the position counts steps of `accumulate` micro-batches
            options["accumulate"] = self.accumulate
        if "decayed" in values:  # a file of an earlier version lacks it
            options["decayed"] = self.network.decayed
        for what, value in options.items():
            if values[what] != as_lists(value):
                raise InputError(
                    f"Trainer: the saved training has {what} {values[what]}, got {as_lists(value)}. Use the saved one."
                )
        self.step.load_state_dict({k.removeprefix("step."): v for k, v in arrays.items() if k.startswith("step.")})
        for callback in self.callbacks:
            callback.serve(self._identity, begun=False)
            prefix = f"callback.{callback.name}."
            tensors = {k.removeprefix(prefix): v for k, v in arrays.items() if k.startswith(prefix)}
            callback.load(decode(values["callbacks"]).get(callback.name, callback.state_dict()), tensors)
        if isinstance(self.schedule, Observer):
            self.schedule.load_state_dict(values["schedule"])
        self.epoch, self.group, self.batch_size = values["epoch"], values["group"], values["batch_size"]
        self.history, self.stopping, self._loaded = decode(values["history"]), values["stopping"], True
