"""Recalibrate: replace running statistics by the exact ones of a data set, at fixed weights."""

from collections.abc import Mapping
from typing import Any

from .._typing import Array
from ..network.sequential import Sequential
from .population import population


def recalibrate(network: Sequential, data: Any) -> dict[str, Array]:
    """Replace the running statistics of every BatchNorm by those of its inputs over all of `data` (see `population`).

    Nothing else changes. Frozen statistics change too, since this is not training.

    Args:
        network: a network with a BatchNorm.
        data: a Source, arrays (x, y) or x as ready features, or a raw `Dataset`, which goes through the preprocessing.

    Returns:
        The earlier statistics by name, for `restore`.

    Raises:
        InputError: no BatchNorm, or unusable data. The network is then unchanged.
    """
    exact = population(network, data, what="recalibrate")
    old = statistics_of(network)
    restore(network, exact)
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
