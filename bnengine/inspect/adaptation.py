"""Adapt statistics: blend those of unlabeled, shifted data with the stored ones."""

from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from .. import validation
from .._typing import Array
from ..errors import InputError
from ..network.sequential import Sequential
from ..ops.statistics import merge
from .population import population
from .recalibration import restore, statistics_of


class Adapted(NamedTuple):
    """How one BatchNorm's statistics changed; root mean squares over its channels.

    mean: |new - old| in units of the old sigma. std: new sigma / old sigma - 1. share: of the data in the result.
    """

    name: str
    mean: float
    std: float
    share: float


@dataclass
class Adaptation:
    """What `adapt` changed, layer by layer; `undo` restores it."""

    network: Sequential
    layers: tuple[Adapted, ...]
    rows: int
    prior: float
    _old: dict[str, Array] = field(repr=False)

    def undo(self) -> None:
        """Restore the earlier statistics bit for bit, whatever has changed them since."""
        restore(self.network, self._old)

    def __str__(self) -> str:
        lines = [f"statistics of {self.rows:,} rows, the stored ones counting as {self.prior:g}"]
        lines += [f"layer {n}: means moved by {m:.3f} sigma, sigma by {s:.1%}" for n, m, s, _ in self.layers]
        return "\n".join(lines)


def adapt(network: Sequential, data: Any, *, prior: float) -> Adaptation:
    """Blend the statistics of `data` with the stored ones, which count as `prior` samples.

    With N stored and m new samples, by Chan's merge: delta = mean_new - mean;  mean <- mean + delta m/(N + m);
    var <- (N var + m var_new)/(N + m) + delta^2 N m/(N + m)^2. Layer by layer: the input of each layer is computed with
    the blended statistics of the layers before it. In images a sample has as many values per channel as positions.
    This corrects offsets and scales of the inputs; it harms if classes are missing. Schneider et al. (2020).

    Weights, gamma and beta do not change.

    Args:
        network: a network with statistics.
        data: x or (x, y) as ready features, a Source, or a raw `Dataset`; at least two rows. Labels are not used.
        prior: 0 discards the stored statistics; a large number hardly changes them; some hundreds are usual for a few
            hundred rows of data.

    Raises:
        InputError: a wrong prior, unusable data, or no statistics to blend with. The network is then unchanged.
    """
    cure = "It is the number of samples that the stored statistics count as."
    prior = validation.number("adapt", "prior", prior, least=0, cure=cure)
    old = statistics_of(network)
    for name, rows in old.items():
        if prior > 0 and rows[0, 0] == 0:
            raise InputError(
                f"adapt: layer {name.removesuffix('.statistics')} has no statistics to blend with. Train first, or "
                "take prior=0."
            )
    counted = 0

    def blend(fresh: Array, stored: Array, rows: int) -> Array:
        nonlocal counted
        counted = rows
        stored[0, :] = prior * fresh[0, :] / rows
        return np.asarray(merge.reference(stored, fresh))

    new = population(network, data, what="adapt", adjust=blend)
    restore(network, new)
    layers = tuple(_adapted(name, old[name], new[name], counted / (counted + prior)) for name in new)
    return Adaptation(network, layers, counted, prior, old)


def _adapted(name: str, old: Array, new: Array, share: float) -> Adapted:
    tiny = np.finfo(np.float64).tiny
    old_std, new_std = (np.sqrt(np.maximum(rows[2], tiny)) for rows in (old, new))
    mean = np.sqrt(np.mean(((new[1] - old[1]) / old_std) ** 2))
    std = np.sqrt(np.mean((new_std / old_std - 1) ** 2))
    return Adapted(name.removesuffix(".statistics"), float(mean), float(std), share)
