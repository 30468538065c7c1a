"""Trainer: epochs of training steps over a source of data, with validation, callbacks and exact resumption."""

from collections.abc import Callable, Sequence
from functools import partial
from math import ceil
from time import perf_counter
from typing import Any, Literal

import numpy as np

from ..data import ArraySource, Batch, IterableSource, Source, as_source, groups, order
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
from .activations import Activations, get_watch
from .averaging import averaged_weights, refresh
from .callbacks import Callback, Record
from .diagnosis import first_non_finite
from .evaluation import evaluate
from .footprint import enough_memory
from .interrupts import deferred_interrupt
from .progress import Progress, progress
from .replaying import Graph, described
from .resident import Resident, bring_in
from .rows import HostRows, Rows
from .scaling import Given, not_counted, unchanged
from .state import Average, Report
from .step import Step

SKIPS_ALLOWED = 10
READ_EVERY = 50  # steps between host reads where a read waits for a device


class Trainer:
    """Trains a network: `fit`, `evaluate`, `save`; the state between two steps is all there is to resume from.

    `optimizer` and `loss`: objects, names or configurations. `learning_rate`: a number or a schedule. `clip_norm`: the
    largest global norm of the gradients. `accumulate`: micro-batches to a step. `statistics`, `average`, `loss_scale`:
    see `Step`. `graph`: whether a step is replayed as one CUDA graph, "auto" where that can be. `resident`: whether all
    training data are kept in the device's memory, "auto" where they take at most half of what a GPU has free; else
    batches are brought there while it computes; on NumPy arrays with native kernels "auto" gathers rows where they lie,
    raw ones of a mapped file too, without a copy of the data. `threads`: how many run native kernels,
    `bnengine.threads.set`; None leaves it as it is. `kernels`: "auto" runs the fused version of each op where there is
    one, "fused" makes a fallback an error, "reference" runs `bnengine.ops` as it is written, in training and
    evaluation. `progress`: "auto", "bar", "plain" or "quiet". `watch`:
    "activations" records their distributions on a step now and then, see `Activations`.
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
        progress: Literal["auto", "bar", "plain", "quiet"] = "auto",
        graph: Graph = "auto",
        resident: Literal["auto"] | bool = "auto",
        threads: int | None = None,
        kernels: Mode = "auto",
        loss_scale: Given = "auto",
        watch: Literal["activations"] | Activations | None = None,
    ) -> None:
        accumulate = integer("Trainer", "accumulate", accumulate, least=1)
        resident = choice("Trainer", "resident", resident, ("auto", True, False))
        kernels = choice("Trainer", "kernels", kernels, MODES)
        if threads is not None:
            pool.set(threads)
        self.kernels = current_mode() if kernels == "auto" else kernels
        self.network, self.loss, self.optimizer = network, get_loss(loss), get_optimizer(optimizer)
        self.schedule: Schedule = get_schedule(learning_rate)
        self.watch = get_watch(watch)
        watching = [] if self.watch is None else [self.watch]  # first, as others write its part of the record down
        self.accumulate, self.callbacks, self.mode = accumulate, [*watching, *callbacks], progress
        with using(self.kernels):
            self.step = Step(
                network, self.optimizer, self.loss,
                clip_norm=clip_norm, statistics=statistics, average=average, graph=graph, loss_scale=loss_scale,
            )  # fmt: skip
        self.keeps_data = resident
        self.resident: Resident | None = None  # the training data, where they are kept in memory
        self.epoch = 0  # the epoch that runs, or that comes next
        self.group = 0  # steps of it that are done
        self.history: list[Record] = []
        self.stopping = ""
        self.batch_size = 0
        self._said = set[str]()
        self._resolved = self._loaded = False

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
        """Train until `epochs` epochs are done, and return the records of all of them.

        `train`, `validation`: a Source, a pair (x, y) or triple (x, y, weights) of arrays, or a callable that returns
        an iterable of such batches; arrays hold ready features, raw data need a Source with their preprocessing.
        `batch_size`: rows of a micro-batch. Called again with more epochs, it goes on.
        The order of the rows is given by the network's seed and the epoch. Ctrl-C ends it cleanly between two
        steps. A training that had stopped early when its state was loaded stays stopped; a second call goes on. Raises
        TrainingFailed when ten steps in a row are not finite, naming the first layer at fault; those that only lower a
        loss scale above 1 are not counted.
        """
        source = as_source(train, self.network.dtype, "train")
        valid = as_source(validation, self.network.dtype, "validation")
        if source is None:
            raise InputError("fit: there is no training data; give a Source, or arrays (x, y)")
        epochs = integer("fit", "epochs", epochs, least=0)
        batch_size = integer("fit", "batch_size", batch_size, least=1)
        self._check(batch_size, source, valid)
        if isinstance(source, (ArraySource, IterableSource)) and source.preprocessing is not None:
            self.network.preprocessing = source.preprocessing
        self.batch_size, self.stopping, self._loaded = batch_size, self.stopping if self._loaded else "", False
        steps = self.steps_per_epoch(source)
        self._resolve(steps, epochs)
        self.network.refresh()
        self.resident = bring_in(source, self.step.inputs, self.keeps_data, self.resident)
        shown = progress(self.mode)
        shown.start(epochs, steps)
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
        """Ask `fit` to end after this epoch."""
        self.stopping = reason

    def _check(self, batch_size: int, source: Source, valid: Source | None) -> None:
        if source.rows is None and not isinstance(source, IterableSource):
            raise InputError(f"fit: {source!r} does not say how many rows it has; use an IterableSource for batches")
        if valid is not None and valid.rows == 0:
            raise InputError("fit: the validation data has no rows; give some, or validation=None")
        if self.group and source.rows is not None and batch_size != self.batch_size:
            raise InputError(
                f"fit: the training stands within an epoch of batches of {self.batch_size} rows, and batch_size "
                f"{batch_size} would repeat rows or leave some out; give batch_size={self.batch_size}"
            )

    def steps_per_epoch(self, source: Source) -> int | None:
        """Optimizer steps of an epoch, None where the source does not say how long it is."""
        if source.rows is None:
            return None
        return ceil(len(groups(source.rows, self.batch_size)) / self.accumulate)

    def _resolve(self, steps: int | None, epochs: int) -> None:
        """Give a schedule that spans the training its length."""
        if steps is not None and epochs and not self._resolved:
            self.schedule = self.schedule.resolved(steps * epochs)
            self._resolved = True

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
        while rows.alike:
            if steps is None and self.group > first and (self.group - first) % READ_EVERY == 0:
                self.step.schedule(self.schedule.for_steps(self.step.report().steps, READ_EVERY))
            size = sum(rows.sizes)
            done = self._run(rows)
            self.group += done
            seen += done * size
            if self._reads():
                report = self._watch(partial(rows.batches, -1), shown, skipped)
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
        report, totals = self._watch(None, shown, skipped), self.step.totals()
        refresh(self.step, source, self.batch_size)
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
            self.schedule.observe(self._watched(self.schedule, record))
        record |= {"seconds": seconds, "samples_per_second": rows / max(seconds, 1e-9)}
        self.history.append(record)
        self.epoch, self.group = self.epoch + 1, 0
        self._each("epoch_ends", record)
        shown.end_epoch(record)

    def _watched(self, schedule: Observer, record: Record) -> float:
        """The validation figure that a schedule looks at, or that of the training where there is no validation."""
        found = [record[name] for name in (f"valid_{schedule.watches}", f"train_{schedule.watches}") if name in record]
        if not found:
            raise InputError(
                f"fit: {schedule!r} looks at the {schedule.watches}, which a {self.loss.task} does not have"
            )
        return float(found[0])

    def _rows(self, source: Source) -> Rows:
        """What is still to be done in this epoch."""
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
        """Run a step, or as many as one native call can before a callback is due, and return how many."""
        with enough_memory(self.network, max(rows.sizes), self.accumulate):
            if self.watch is not None:
                self.watch.step_begins(self, rows)
            ahead = min((callback.steps_ahead(self) for callback in self.callbacks), default=rows.alike)
            done = self.step.next(rows, ahead)
            if self.watch is not None:
                self.watch.done += done
            return done

    def _reads(self) -> bool:
        return not self.network.backend.on_gpu or self.group % READ_EVERY == 0

    def _watch(self, batches: Callable[[], list[Batch]] | None, shown: Progress, skipped: int) -> Report:
        """Read the counters; say when steps were skipped, give up after ten in a row."""
        report = self.step.report()
        self._tell_modes(shown)
        new, last = report.skipped - skipped, report.steps + report.skipped
        if new == 1 and not report.ok:
            shown.message(f"step {last} of the training was not finite and was skipped: {unchanged(report.loss_scale)}")
        elif new:
            shown.message(
                f"{new} of the steps up to step {last} of the training were not finite and were skipped: "
                f"{unchanged(report.loss_scale)}"
            )
        if report.longest_skip >= SKIPS_ALLOWED:
            self.step.state.forget_skips()  # whoever catches the error and cures its cause can go on
            where = self._find_fault(batches()) if batches else "it cannot be told which batch it was"
            raise TrainingFailed(
                f"fit: {report.longest_skip} steps in a row were not finite{not_counted(report.loss_scale)}; {where}. "
                "The network is as it was before them: lower the learning rate, clip the gradients (clip_norm), or "
                "look at the data"
            )
        return report

    def _tell_modes(self, shown: Progress) -> None:
        """Report once why steps do not run as one graph or native call, unless they are not meant to."""
        if self.step.graph is False or self.kernels == "reference":
            return
        for line in map(described, self.step.modes()):
            if line and line not in self._said:
                self._said.add(line)
                shown.message(line)

    def _find_fault(self, batches: list[Batch]) -> str:
        found = [first_non_finite(self.step, batch) for batch in batches]
        return next(filter(None, found), "nothing that can be seen again: the step was finite this time")

    # -- evaluate -----------------------------------------------------------------------------------------------------

    def evaluate(
        self, data: Any, *, batch_size: int = 1024, metrics: Sequence[Metric] | None = None
    ) -> dict[str, float]:
        """Loss and metrics in evaluation mode, with the averaged weights where an `Average` is kept."""
        source = as_source(data, self.network.dtype, "evaluate")
        if source is None:
            raise InputError("evaluate: there is no data; give a Source, or arrays (x, y)")
        with using(self.kernels), averaged_weights(self.step):
            return evaluate(self.network, self.loss, source, batch_size=batch_size, metrics=metrics)

    # -- state --------------------------------------------------------------------------------------------------------

    def save(self, path: Any) -> None:
        """Write network, optimizer, counters, position, schedule, callbacks' state and preprocessing as one
        checkpoint.
        """
        save(path, self.network, trainer=self)

    def resume(self, path: Any) -> None:
        """Take over network and training from a checkpoint that `save` wrote; `fit` then goes on where it stood, bit
        for bit.

        The trainer must have been made with the same arguments, and `fit` must get the same data. Raises
        CheckpointError.
        """
        saved = read(path)
        if saved.training is None:
            raise CheckpointError(f"{path}: holds a network without a training; use bnengine.load")
        mine = as_lists(self.network.config())
        if differ := [what for what, value in saved.config.items() if value != mine[what]]:
            raise CheckpointError(
                f"{path}: holds a network of other {', '.join(differ)}: {saved.config[differ[0]]} where the trainer's "
                f"has {mine[differ[0]]}; make it as it was saved"
            )
        self.load_state(saved.arrays, saved.training)
        self.network.load_state_dict(saved.state)
        self.network.preprocessing = saved.preprocessing

    def state(self) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """(arrays, JSON values): all that `load_state` needs beside the network's own state. Times are left out, so
        that equal trainings have equal states."""
        arrays = {f"step.{name}": array for name, array in self.step.state_dict().items()}
        callbacks: dict[str, Any] = {}
        for callback in self.callbacks:
            own, tensors = callback.state_dict(), callback.tensors()
            if not (own or tensors):
                continue
            if not callback.name or callback.name in callbacks:
                raise InputError(
                    f"Trainer: the state of a {type(callback).__name__} called {callback.name!r} cannot be kept; give "
                    "it a `name` that no other callback has"
                )
            callbacks[callback.name] = own
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
        """Go on where `state` was taken; the trainer must have been made with the same arguments."""
        own_values: dict[str, Any] = {"loss": self.loss.config(), "optimizer": self.optimizer.config()}
        if values["group"]:  # within an epoch the position counts steps of so many micro-batches
            own_values["accumulate"] = self.accumulate
        if "decayed" in values:  # which layers do not tell that are built anew from a file
            own_values["decayed"] = self.network.decayed
        for what, mine in own_values.items():
            if values[what] != as_lists(mine):
                raise InputError(
                    f"Trainer: the state was saved with {what} {values[what]}; this trainer has {as_lists(mine)}"
                )
        self.step.load_state_dict({k.removeprefix("step."): v for k, v in arrays.items() if k.startswith("step.")})
        for callback in self.callbacks:
            prefix = f"callback.{callback.name}."
            own = {k.removeprefix(prefix): v for k, v in arrays.items() if k.startswith(prefix)}
            callback.load(decode(values["callbacks"]).get(callback.name, callback.state_dict()), own)
        if isinstance(self.schedule, Observer):
            self.schedule.load_state_dict(values["schedule"])
        self.epoch, self.group, self.batch_size = values["epoch"], values["group"], values["batch_size"]
        self.history, self.stopping, self._loaded = decode(values["history"]), values["stopping"], True
