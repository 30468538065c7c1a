"""Averaged weights put in place of the trained ones for a while, with statistics that belong to them."""

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
    """Inside, the network has the averaged weights and statistics, if any are kept; afterwards its own again."""
    if step.state.averaged is None:
        yield
        return
    network, xp = step.network, step.backend.xp
    own = [xp.asarray(flat.array, copy=True) for flat in (network.parameters, network.statistics)]
    _put(network, *(flat.array for flat in step.state.averaged))
    try:
        yield
    finally:
        _put(network, *own)


def refresh(step: Step, source: Source, batch_size: int) -> None:
    """Statistics of the training data for the averaged weights, where the `Average` asks for "recomputed" ones."""
    if step.state.averaged is None or step.state.average is None or step.state.average.statistics != "recomputed":
        return
    with averaged_weights(step):
        fresh = recomputed_statistics(step.network, source, batch_size)
    step.state.averaged[1].array[...] = fresh


def recomputed_statistics(network: Sequential, source: Source, batch_size: int) -> Array:
    """(3, C): each channel's count, mean and variance over a pass of training-mode forwards without dropout, merged
    exactly.

    Each layer sees inputs normalised by batches, so with batches of the training's size these are the statistics that
    training itself saw, for the weights as they are. Channels whose statistics are frozen keep the running ones.
    """
    pending = network.statistics.like()
    pending.start()
    with np.errstate(all="ignore"):
        for batch in batches_of(source, batch_size, last="join"):
            network.forward(batch.x, training=True, pending=pending, dropout=False)
    pending.finish()
    found = pending.array
    return network.backend.xp.where(found[0, :] > 0, found, network.statistics.array)


def _put(network: Sequential, parameters: Array, statistics: Array) -> None:
    network.parameters.array[...] = parameters
    network.statistics.array[...] = statistics
    network.refresh()
