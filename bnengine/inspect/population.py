"""Exact population statistics: what every BatchNorm's running mean and variance estimate, at fixed weights."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from .._typing import Array
from ..data import ArraySource, Batch, Dataset, Source, as_source
from ..errors import InputError
from ..network.sequential import Sequential
from ..training.evaluation import batches_of

ROWS = 1024  # at once

# (a layer's statistics over all rows, its stored ones, the rows) -> those that the layers behind it are to see.
Settle = Callable[[Array, Array, int], Array]


def source_of(what: str, network: Sequential, data: Any) -> Any:
    """A source over the network's inputs: a Source, arrays (x, y) or x alone as ready features, or a raw `Dataset`.

    A `Dataset` goes through the preprocessing that the network carries. Raises InputError, the message beginning with
    `what`.
    """
    if isinstance(data, Dataset):
        if network.preprocessing is None:
            raise InputError(
                f"{what}: {data!r} is raw, and the network carries no preprocessing; give arrays of ready features"
            )
        ready = network.preprocessing.aligned(data)
        return ArraySource(ready.x, ready.y, preprocessing=network.preprocessing, dtype=network.dtype, name=data.name)
    source = as_source((data, None) if hasattr(data, "shape") else data, network.dtype, what)
    if source is None or source.rows == 0:
        raise InputError(f"{what}: there is no data; give a Source, a Dataset, or arrays of at least two rows")
    return source


def population(
    network: Sequential, data: Any, *, what: str = "population", settle: Settle | None = None
) -> dict[str, Array]:
    """The statistics (count, mean, biased variance), (3, C) float64, of every BatchNorm's input over all of `data`.

    Layer by layer: each layer's input is computed with the exact statistics of the layers before it, the moments of the
    batches merged by Chan, so that neither the batch size nor the order matters beyond rounding. One pass over the data
    for each BatchNorm, in evaluation mode apart from their statistics: no dropout. By the statistics' names; the
    network is left as it is. `data`: see `source_of`. `settle`: what a layer is given instead of what was found. A
    layer that stands twice has the statistics of both places, the first of which was passed with its stored ones.
    Raises InputError where there is no BatchNorm, or fewer than two rows.
    """
    source = source_of(what, network, data)
    names = list(network.named_statistics())
    if not names:
        raise InputError(f"{what}: {network!r} has no BatchNorm, so there are no statistics to collect")
    copy = normalising_by_running(network)
    for name in names:
        stored = copy.named_statistics()[name]
        found, rows = _pass(copy, source, name, what)
        if settle is not None:
            found = settle(found, np.array(network.backend.to_numpy(stored)), rows)
        stored[...] = network.backend.asarray(found)
    return {name: network.backend.to_numpy(array, copy=True) for name, array in copy.named_statistics().items()}


def copied(network: Sequential) -> Sequential:
    """A network of the same layers and numbers in memory of its own."""
    copy = Sequential.from_config(network.config(), backend=network.backend)
    copy.load_state_dict(network.state_dict())
    return copy


def normalising_by_running(network: Sequential) -> Sequential:
    """A copy whose training passes normalise by the running statistics, and yet propose each batch's own."""
    copy = copied(network)
    copy.thaw("statistics")
    copy.freeze("normalization")
    return copy


def _pass(copy: Sequential, source: Source, name: str, what: str) -> tuple[Array, int]:
    """One layer's moments over all the data, those of the layers before it being settled; the rows."""
    pending, rows = copy.statistics.like(), 0
    for batch in walked(source, what):
        copy.forward(batch.x, training=True, pending=pending, dropout=False)
        rows += len(batch.x)
    return np.array(copy.backend.to_numpy(pending[copy.named_handles()[name]])), rows


def walked(source: Source, what: str) -> Iterator[Batch]:
    """Every sample once, in batches of two rows or more: a batch of one joins the one before or behind it."""
    held: Batch | None = None
    for batch in batches_of(source, ROWS, last="join"):
        if held is not None and min(len(held.x), len(batch.x)) > 1:
            yield held
            held = None
        held = batch if held is None else joined(held, batch)
    if held is None or len(held.x) < 2:
        raise InputError(f"{what}: {0 if held is None else 1} rows have no variance; give at least two")
    yield held


def joined(first: Batch, second: Batch) -> Batch:
    """The rows of both."""
    y = None if first.y is None else np.concatenate([first.y, second.y])
    weights = None if first.weights is None else np.concatenate([first.weights, second.weights])
    return Batch(np.concatenate([first.x, second.x]), y, weights, np.concatenate([first.samples, second.samples]))
