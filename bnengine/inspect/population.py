"""Exact population statistics: what the running mean and variance of every BatchNorm estimate."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from .._typing import Array
from ..data import ArraySource, Batch, Dataset, Source, as_source
from ..errors import InputError
from ..network.sequential import Sequential
from ..training.evaluation import batches_of

ROWS = 1024  # in a batch

# (statistics of a layer over all rows, its stored ones, number of rows) -> those that the next layers see.
Adjust = Callable[[Array, Array, int], Array]


def source_of(what: str, network: Sequential, data: Any) -> Any:
    """A source of the network's inputs; a raw `Dataset` goes through the network's preprocessing.

    Args:
        what: the function with which errors begin.
        network: the network that takes the inputs.
        data: a Source, arrays (x, y) or x as ready features, or a raw `Dataset`.

    Raises:
        InputError: no data, or a raw data set and a network without preprocessing.
    """
    if isinstance(data, Dataset):
        if network.preprocessing is None:
            raise InputError(
                f"{what}: the network has no preprocessing for raw data, got {data!r}. Give arrays of ready features."
            )
        ready = network.preprocessing.aligned(data)
        return ArraySource(ready.x, ready.y, preprocessing=network.preprocessing, dtype=network.dtype, name=data.name)
    source = as_source((data, None) if hasattr(data, "shape") else data, network.dtype, what)
    if source is None or source.rows == 0:
        raise InputError(f"{what}: there is no data. Give a Source, a Dataset, or arrays of at least two rows.")
    return source


def population(
    network: Sequential, data: Any, *, what: str = "population", adjust: Adjust | None = None
) -> dict[str, Array]:
    """The statistics (count, mean, biased variance), (3, C) float64, of every BatchNorm's input over all of `data`.

    By name. Layer by layer: the input of each layer is computed with the exact statistics of the layers before it,
    without dropout. Batches are merged by Chan's formula, so neither their size nor the order of the rows matters
    beyond rounding. The data are read once for each BatchNorm. A layer used twice has the statistics of both uses, the
    first of which runs with the stored ones. The network does not change.

    Args:
        network: a network with a BatchNorm.
        data: as for `source_of`.
        what: the function with which errors begin.
        adjust: what to use in place of the statistics of a layer.

    Raises:
        InputError: no BatchNorm, or fewer than two rows.
    """
    source = source_of(what, network, data)
    names = list(network.named_statistics())
    if not names:
        raise InputError(f"{what}: {network!r} has no BatchNorm, so there are no statistics to collect. Add one.")
    copy = using_running_statistics(network)
    for name in names:
        stored = copy.named_statistics()[name]
        statistics, rows = _collect(copy, source, name, what)
        if adjust is not None:
            statistics = adjust(statistics, np.array(network.backend.to_numpy(stored)), rows)
        stored[...] = network.backend.asarray(statistics)
    return {name: network.backend.to_numpy(array, copy=True) for name, array in copy.named_statistics().items()}


def copied(network: Sequential) -> Sequential:
    """A copy of the network with its own memory."""
    copy = Sequential.from_config(network.config(), backend=network.backend)
    copy.load_state_dict(network.state_dict(), sound=False)
    return copy


def using_running_statistics(network: Sequential) -> Sequential:
    """A copy whose training passes normalize by the running statistics and still return batch statistics."""
    copy = copied(network)
    copy.thaw("statistics")
    copy.freeze("normalization")
    return copy


def _collect(copy: Sequential, source: Source, name: str, what: str) -> tuple[Array, int]:
    """The statistics of one layer over all data, and the number of rows."""
    pending, rows = copy.statistics.like(), 0
    for batch in batches_with_variance(source, what):
        copy.forward(batch.x, training=True, pending=pending, dropout=False)
        rows += len(batch.x)
    return np.array(copy.backend.to_numpy(pending[copy.named_handles()[name]])), rows


def batches_with_variance(source: Source, what: str) -> Iterator[Batch]:
    """Every sample once, in batches of at least two rows: a single row joins a neighboring batch."""
    waiting: Batch | None = None
    for batch in batches_of(source, ROWS, last="join"):
        if waiting is not None and min(len(waiting.x), len(batch.x)) > 1:
            yield waiting
            waiting = None
        waiting = batch if waiting is None else joined(waiting, batch)
    if waiting is None or len(waiting.x) < 2:
        raise InputError(f"{what}: a variance needs two rows, got {0 if waiting is None else 1}. Give more data.")
    yield waiting


def joined(first: Batch, second: Batch) -> Batch:
    """One batch with the rows of both."""
    y = None if first.y is None else np.concatenate([first.y, second.y])
    weights = None if first.weights is None else np.concatenate([first.weights, second.weights])
    return Batch(np.concatenate([first.x, second.x]), y, weights, np.concatenate([first.samples, second.samples]))
