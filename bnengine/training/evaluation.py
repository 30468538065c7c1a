"""Evaluate a network: loss and metrics over a data set, in evaluation mode."""

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
    """Return the metrics that `evaluate` computes by default: accuracy, or the mean absolute error of a regression."""
    return [METRICS.make(loss.metric)]


def batches_of(source: Source, batch_size: int, *, last: str = "keep") -> Iterator[Batch]:
    """Yield every sample of a source once, in its order; `last` as in `data.groups`."""
    if isinstance(source, IterableSource):
        yield from source.epoch()
    elif source.rows is not None:
        for rows in groups(source.rows, batch_size, last=last):
            yield source.take(np.arange(rows.start, rows.stop))
    else:
        raise InputError("evaluate: the source does not know its number of rows. Pass arrays or an IterableSource.")


def evaluate(
    network: Sequential,
    loss: LossFunction,
    source: Source,
    *,
    batch_size: int = 1024,
    metrics: Sequence[Metric] | None = None,
) -> dict[str, float]:
    """Compute loss and metrics in evaluation mode; the network does not change.

    Args:
        network: evaluated by its running statistics.
        loss: of the training.
        source: data with targets.
        batch_size: rows that run at once.
        metrics: they are reset first, and hold their details afterwards, such as a confusion matrix; None for
            `default_metrics`.

    Returns:
        {"loss": mean loss, name of a metric: its value, ...}

    Raises:
        InputError: no targets, no rows, or only rows of weight 0.
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
                raise InputError("evaluate: the data has no targets. Use predict instead.")
            target = loss.targets(batch.y, outputs)
            total = loss.total(target, batch.weights, outputs)
            if total == 0:
                continue
            device_target = backend.asarray(target, "int64" if target.dtype.kind == "i" else network.dtype)
            weights = None if batch.weights is None else backend.asarray(batch.weights, network.dtype)
            divisor = backend.asarray(np.asarray([total]), network.dtype)
            output, part = _output_and_loss(network, loss, batch.x, device_target, weights, constants, divisor)
            value, weight = value + float(backend.to_numpy(part)[0]) * total, weight + total
            host = backend.to_numpy(widened(output))
            for metric in metrics:
                metric.update(host, target, batch.weights)
    if weight == 0:
        raise InputError(
            "evaluate: the data has no rows, or only rows of weight 0. Pass at least one of positive weight."
        )
    return {"loss": value / weight} | {metric.name: float(metric.value()) for metric in metrics}


def _output_and_loss(
    network: Sequential, loss: LossFunction, x: Any, target: Array, weights: Array | None, constants: Array | None,
    divisor: Array,
) -> Arrays:  # fmt: skip
    """Return (output, loss) of a batch."""

    def run(x: Array, *others: Array | None, memory: Memory) -> Arrays:
        output = memory.run(network.forward, x, training=False).output
        return output, memory.run(loss, output, *others).value

    arguments = network.asarray(x), target, weights, constants, divisor
    kind = loss, *(None if a is None else (tuple(a.shape), str(a.dtype)) for a in arguments)
    return network.evaluated(kind, arguments, run)
