"""Evaluate a network on a source of batches: loss and metrics, by the running statistics."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from .._typing import Array
from ..arrays.dtypes import widened
from ..data import Batch, IterableSource, Source, groups
from ..errors import InputError
from ..losses import LossFunction
from ..metrics import METRICS, Metric
from ..network.passes import Arrays
from ..network.sequential import Sequential
from ..runtime.memory import Memory


def default_metrics(loss: LossFunction) -> list[Metric]:
    """Return the usual metric of a loss: accuracy for classification, mean absolute error for regression."""
    return [METRICS.make(loss.metric)]


def batches_of(source: Source, batch_size: int, *, last: str = "keep") -> Iterator[Batch]:
    """Every sample once, in the source's order."""
    if isinstance(source, IterableSource):
        yield from source.epoch()
    elif source.rows is not None:
        for rows in groups(source.rows, batch_size, last=last):
            yield source.take(np.arange(rows.start, rows.stop))
    else:
        raise InputError(
            "evaluate: the source has no rows and cannot be walked; give arrays, a Source or an IterableSource"
        )


def evaluate(
    network: Sequential,
    loss: LossFunction,
    source: Source,
    *,
    batch_size: int = 1024,
    metrics: Sequence[Metric] | None = None,
) -> dict[str, float]:
    """{"loss": ..., and each metric's name: its value}, all in evaluation mode: nothing of the network changes.

    `metrics` are reset first and hold their details afterwards (a confusion matrix, say); None for the usual one.
    """
    metrics = default_metrics(loss) if metrics is None else metrics
    for metric in metrics:
        metric.reset()
    backend, outputs = network.backend, network.outputs or 1
    network.refresh()
    constants = loss.constants(outputs)
    constants = None if constants is None else backend.asarray(constants, network.dtype)
    value = weight = 0.0
    with np.errstate(all="ignore"):
        for batch in batches_of(source, batch_size):
            if batch.y is None:
                raise InputError("evaluate: the data has no targets; use predict")
            target = loss.targets(batch.y, outputs)
            total = loss.total(target, batch.weights, outputs)
            if total == 0:
                continue
            device_target = backend.asarray(target, "int64" if target.dtype.kind == "i" else network.dtype)
            weights = None if batch.weights is None else backend.asarray(batch.weights, network.dtype)
            divisor = backend.asarray(np.asarray([total]), network.dtype)
            output, part = _judged(network, loss, batch.x, device_target, weights, constants, divisor)
            value, weight = value + float(backend.to_numpy(part)[0]) * total, weight + total
            host = backend.to_numpy(widened(output))
            for metric in metrics:
                metric.update(host, target, batch.weights)
    if weight == 0:
        raise InputError("evaluate: the data has no rows, or only rows of weight 0")
    return {"loss": value / weight} | {metric.name: float(metric.value()) for metric in metrics}


def _judged(
    network: Sequential, loss: LossFunction, x: Any, target: Array, weights: Array | None, constants: Array | None,
    divisor: Array,
) -> Arrays:  # fmt: skip
    """(output, loss) of a batch."""

    def run(x: Array, *others: Array | None, memory: Memory) -> Arrays:
        output = memory.run(network.forward, x, training=False).output
        return output, memory.run(loss, output, *others).value

    given = network.asarray(x), target, weights, constants, divisor
    kind = loss, *(None if a is None else (tuple(a.shape), str(a.dtype)) for a in given)
    return network.evaluated(kind, given, run)
