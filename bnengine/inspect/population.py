"""Exact population statistics: what every BatchNorm's running mean and variance estimate, at fixed weights."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from .._typing import Array
from ..data import Batch
from ..errors import InputError
from ..network import Sequential
from ..training.evaluation import batches_of
from ..training.feeding import as_source

ROWS = 1024  # at once


def source_of(what: str, network: Sequential, data: Any) -> Any:
    """A source over ready features: a Source, arrays (x, y), or x alone; raw data go through the preprocessing before.

    Raises InputError, the message beginning with `what`.
    """
    if hasattr(data, "shape"):
        data = (data, np.zeros(len(data), np.int64))
    source = as_source(data, network.dtype, what)
    if source is None or source.rows == 0:
        raise InputError(f"{what}: there is no data; give a Source or arrays of at least two rows")
    return source


def population(network: Sequential, data: Any, *, what: str = "population") -> dict[str, Array]:
    """The statistics (count, mean, biased variance), (3, C) float64, of every BatchNorm's input over all of `data`.

    Layer by layer: each layer's input is computed with the exact statistics of the layers before it, the moments of the
    batches merged by Chan, so that neither the batch size nor the order matters beyond rounding. One pass over the data
    for each BatchNorm. By the statistics' names; the network is left as it is. Raises InputError where there is no
    BatchNorm, or fewer than two rows.
    """
    source = source_of(what, network, data)
    names = list(network.named_statistics())
    if not names:
        raise InputError(f"{what}: {network!r} has no BatchNorm, so there are no statistics to collect")
    copy = normalising_by_running(network)
    for name in names:
        copy.statistics[copy.named_handles()[name]][...] = _pass(copy, source, name, what)
    return {name: np.array(network.backend.to_numpy(array)) for name, array in copy.named_statistics().items()}


def normalising_by_running(network: Sequential) -> Sequential:
    """A copy whose training passes normalise by the running statistics, and yet propose each batch's own."""
    copy = Sequential.from_config(network.config(), backend=network.backend)
    copy.load_state_dict(network.state_dict())
    copy.thaw("statistics")
    copy.freeze("normalization")
    return copy


def _pass(copy: Sequential, source: Any, name: str, what: str) -> Array:
    """One layer's moments over all the data, those of the layers before it being settled."""
    proposals, rows = copy.statistics.like(), 0
    for batch in _batches(source):
        copy.forward(batch.x, training=True, proposals=proposals, dropout=False)
        rows += len(batch.x)
    if rows < 2:
        raise InputError(f"{what}: {rows} rows have no variance; give at least two")
    return proposals[copy.named_handles()[name]]


def _batches(source: Any) -> Iterator[Batch]:
    """Every sample once; a last one alone joins the batch before it."""
    return batches_of(source, ROWS, last="join")
