"""Recalibrate: running statistics replaced by the exact ones of a whole data set, at fixed weights."""

from collections.abc import Mapping
from typing import Any

from .._typing import Array
from ..network.sequential import Sequential
from .population import population


def recalibrate(network: Sequential, data: Any) -> dict[str, Array]:
    """Replace every BatchNorm's running statistics by those of its inputs over all of `data`; the old ones, by name.

    `data`: a Source, arrays (x, y) or x alone as ready features, or a raw `Dataset`, which goes through the network's
    preprocessing. See `population`; the statistics are all that changes, frozen ones too since this is no training,
    and the arrays returned are what `restore` takes. Raises InputError, the network left as it was.
    """
    found = population(network, data, what="recalibrate")
    old = statistics_of(network)
    restore(network, found)
    return old


def statistics_of(network: Sequential) -> dict[str, Array]:
    """Copies of the running statistics by name, each (3, C) float64 = (count, mean, var), on the host."""
    return {name: network.backend.to_numpy(array, copy=True) for name, array in network.named_statistics().items()}


def restore(network: Sequential, statistics: Mapping[str, Array]) -> None:
    """Write running statistics (count, mean, var), (3, C), by name, into the network."""
    state = network.state_dict()
    for name, rows in statistics.items():
        place = name.removesuffix("statistics")
        for key, row in zip(("count", "mean", "var"), rows, strict=True):
            state[f"{place}running_{key}"] = row
    network.load_state_dict(state)
