"""Loss and accuracy of a network on data, with different statistics in its BatchNorms."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from .. import ops
from .._typing import Array
from ..arrays.dtypes import widened
from ..data import Batch, IterableSource, Source, groups, order
from ..errors import InputError
from ..losses import LossFunction, usual_loss
from ..metrics import Accuracy
from ..network.sequential import Sequential
from ..training.evaluation import evaluate
from .population import copied, joined
from .recalibration import restore, statistics_of

LOSS, ACCURACY = 0.05, 0.02  # differences that count
WORST = 1e30  # replaces a loss that is not finite


class Score(NamedTuple):
    """A mean loss, and the share of correct rows; None without classes."""

    loss: float
    accuracy: float | None

    def cost(self, best: "Score") -> float:
        """How much worse this is than `best`; from 1 on it counts: a loss higher by 0.05, or an accuracy lower by 0.02.

        The two are added, so that a better loss does not hide a worse accuracy. A loss higher by 0.05 means a
        probability of the true class that is 5 % lower in the geometric mean.
        """
        fewer = 0.0 if self.accuracy is None or best.accuracy is None else best.accuracy - self.accuracy
        return (self.loss - best.loss) / LOSS + fewer / ACCURACY


def loss_for(what: str, network: Sequential, source: Source) -> LossFunction:
    """The usual loss for the targets of the first batch: cross-entropy for integers, else the mean squared error."""
    batch = next(training_batches(source, 2, seed=0))
    if batch.y is None:
        raise InputError(f"{what}: the training data have no targets, so there is no loss to compare. Give (x, y).")
    return usual_loss("classification" if batch.y.dtype.kind == "i" else "regression", network.outputs)


def training_batches(source: Source, size: int, *, seed: int) -> Iterator[Batch]:
    """One epoch in batches of at least two rows: `size` rows in an order drawn from `seed`, or those of an iterable."""
    if isinstance(source, IterableSource):
        waiting: Batch | None = None
        for batch in source.epoch():
            if waiting is not None and len(waiting.x) > 1:
                yield waiting
                waiting = None
            waiting = batch if waiting is None else joined(waiting, batch)
        if waiting is not None and len(waiting.x) > 1:
            yield waiting
        return
    assert source.rows is not None
    positions = order(source.rows, seed=seed, epoch=0)
    for rows in groups(source.rows, size):
        yield source.take(positions[rows])


class Scores:
    """Loss and accuracy of a copy of a network, with any statistics."""

    def __init__(self, network: Sequential, loss: LossFunction) -> None:
        self.network, self.loss = copied(network), loss

    def by(self, statistics: Mapping[str, Array], source: Source) -> Score:
        """In evaluation mode."""
        restore(self.network, statistics)
        with np.errstate(all="ignore"):
            figures = evaluate(self.network, self.loss, source, metrics=self._metrics())
        return _score(figures["loss"], figures.get("accuracy"))

    def by_batches(self, batches: Iterable[Batch]) -> Score:
        """In training mode, each batch by its own statistics; no dropout."""
        network, loss = self.network, self.loss
        backend, outputs = network.backend, network.outputs or 1
        constants = loss.constants(outputs)
        constants = None if constants is None else backend.asarray(constants, network.dtype)
        value = weight = 0.0
        metrics = self._metrics()
        with np.errstate(all="ignore"):
            for batch in batches:
                assert batch.y is not None
                target = loss.targets(batch.y, outputs)
                total = loss.total(target, batch.weights, outputs)
                if total == 0:
                    continue
                output = network.forward(batch.x, training=True, dropout=False).output
                known = backend.asarray(target, "int64" if target.dtype.kind == "i" else network.dtype)
                weights = None if batch.weights is None else backend.asarray(batch.weights, network.dtype)
                divisor = backend.asarray(np.asarray([total]), network.dtype)
                part = loss(output, known, weights, constants, divisor).value
                value, weight = value + float(backend.to_numpy(part)[0]) * total, weight + total
                for metric in metrics:
                    metric.update(backend.to_numpy(widened(output)), target, batch.weights)
        return _score(value / max(weight, 1e-300), float(metrics[0].value()) if metrics else None)

    def running(
        self, statistics: Mapping[str, Array], source: Source, size: int, steps: int, *, seed: int, dropout: bool
    ) -> dict[str, Array]:
        """What `steps` training batches would make of these statistics if no weight moved."""
        network, backend = self.network, self.network.backend
        restore(network, statistics)
        ok, done, epoch = backend.asarray(np.ones(1, bool)), 0, 0
        while done < steps:
            for batch in training_batches(source, size, seed=seed + epoch):
                keys: dict[str, Any] = {"samples": batch.samples, "step": np.asarray([done])}
                with np.errstate(all="ignore"):
                    pending = network.forward(batch.x, training=True, dropout=dropout, **keys).pending
                    stored = network.statistics.array
                    stored[...] = ops.commit(stored, pending.array, ok, *network.commit_rules)
                done += 1
                if done == steps:
                    break
            epoch += 1
        return statistics_of(network)

    def _metrics(self) -> list[Accuracy]:
        return [Accuracy()] if self.loss.task == "classification" else []


def _score(loss: float, accuracy: float | None) -> Score:
    return Score(loss if np.isfinite(loss) else WORST, None if accuracy is None else float(accuracy))
