"""Averaged weights: replace the trained ones temporarily, with running statistics that fit them."""

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

from .._typing import Array
from ..data import Source
from ..network.sequential import Sequential
from .evaluation import batches_of
from .step import Step


@contextmanager
def averaged_weights(step: Step) -> Iterator[None]:
    """Inside, the network has the averaged weights and statistics, if an `Average` is kept; then the trained ones."""
    if step.state.averaged is None:
        yield
        return
    network, xp = step.network, step.backend.xp
    trained = [xp.asarray(flat.array, copy=True) for flat in (network.parameters, network.statistics)]
    _put(network, *(flat.array for flat in step.state.averaged))
    try:
        yield
    finally:
        _put(network, *trained)


def recompute_statistics(step: Step, source: Source, batch_size: int) -> None:
    """Recompute the statistics of the averaged weights from the training data, if `Average.statistics` says so."""
    if step.state.averaged is None or step.state.average is None or step.state.average.statistics != "recomputed":
        return
    with averaged_weights(step):
        fresh = recomputed_statistics(step.network, source, batch_size)
    step.state.averaged[1].array[...] = fresh


def recomputed_statistics(network: Sequential, source: Source, batch_size: int) -> Array:
    """Return the statistics of the training data for the network's present weights.

    Runs forward passes in training mode, without dropout, and merges their batch statistics exactly. With batches of
    the training's size these are the statistics that training itself would see.

    Returns:
        (3, C): each channel's count, mean and variance. Channels with frozen statistics keep the running ones.
    """
    pending = network.statistics.like()
    pending.start()
    with np.errstate(all="ignore"):
        for batch in batches_of(source, batch_size, last="join"):
            network.forward(batch.x, training=True, pending=pending, dropout=False)
    pending.finish()
    merged = pending.array
    return network.backend.xp.where(merged[0, :] > 0, merged, network.statistics.array)


def _put(network: Sequential, parameters: Array, statistics: Array) -> None:
    network.parameters.array[...] = parameters
    network.statistics.array[...] = statistics
    network.refresh()
