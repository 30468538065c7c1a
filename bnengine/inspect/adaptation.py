"""Adapt: the statistics of unlabelled, shifted data blended with the stored ones."""

from dataclasses import dataclass, field
from math import isfinite
from numbers import Real
from typing import Any, NamedTuple

import numpy as np

from .._typing import Array
from ..errors import InputError
from ..network.sequential import Sequential
from ..ops.statistics import merge
from .population import population
from .recalibration import restore, statistics_of


class Moved(NamedTuple):
    """What became of one BatchNorm's statistics: root mean squares over its channels.

    mean: |new - old| in units of the old sigma; std: new sigma / old sigma - 1; share: of the data in what is stored.
    """

    name: str
    mean: float
    std: float
    share: float


@dataclass
class Adaptation:
    """What `adapt` changed, layer by layer, and the way back."""

    network: Sequential
    layers: tuple[Moved, ...]
    rows: int
    prior: float
    _old: dict[str, Array] = field(repr=False)

    def undo(self) -> None:
        """Put back the statistics as they were before, bit for bit, whatever was done to them since."""
        restore(self.network, self._old)

    def __str__(self) -> str:
        lines = [f"statistics of {self.rows:,} rows, the stored ones counting as {self.prior:g}"]
        lines += [f"layer {n}: means moved by {m:.3f} sigma, sigma by {s:.1%}" for n, m, s, _ in self.layers]
        return "\n".join(lines)


def adapt(network: Sequential, data: Any, *, prior: float) -> Adaptation:
    """Blend the statistics of `data`, which needs no labels, with the stored ones as if these were of `prior` samples.

    With N stored and m new samples, by Chan's merge: delta = mean_new - mean;  mean <- mean + delta m/(N + m);
    var <- (N var + m var_new)/(N + m) + delta^2 N m/(N + m)^2. Layer by layer, each one's input being computed with the
    blended statistics before it. prior 0 forgets the stored ones; a large one hardly moves them; some hundred is usual
    where the data have a few hundred rows. In images a sample has as many values a channel as it has positions, stored
    or new. Offsets and scales of the inputs are taken up; where classes are missing it harms.

    `data`: x alone or (x, y) as ready features, a Source, or a raw `Dataset`; at least two rows. Weights, gamma and
    beta stay. Raises InputError, the network left as it was. Schneider et al. (2020).
    """
    if isinstance(prior, bool) or not isinstance(prior, Real) or not isfinite(prior) or prior < 0:
        raise InputError(
            f"adapt: prior {prior!r} is not a finite number from 0 up; it is the samples the old ones count"
        )
    old = statistics_of(network)
    for name, rows in old.items():
        if prior > 0 and rows[0, 0] == 0:
            raise InputError(
                f"adapt: layer {name.removesuffix('.statistics')} has no statistics to blend with; train first, or "
                "take prior=0"
            )
    counted = 0

    def settle(found: Array, stored: Array, rows: int) -> Array:
        nonlocal counted
        counted = rows
        stored[0, :] = float(prior) * found[0, :] / rows
        return np.asarray(merge.reference(stored, found))

    new = population(network, data, what="adapt", settle=settle)
    restore(network, new)
    layers = tuple(_moved(name, old[name], new[name], counted / (counted + float(prior))) for name in new)
    return Adaptation(network, layers, counted, float(prior), old)


def _moved(name: str, old: Array, new: Array, share: float) -> Moved:
    tiny = np.finfo(np.float64).tiny
    old_std, new_std = (np.sqrt(np.maximum(rows[2], tiny)) for rows in (old, new))
    mean = np.sqrt(np.mean(((new[1] - old[1]) / old_std) ** 2))
    std = np.sqrt(np.mean((new_std / old_std - 1) ** 2))
    return Moved(name.removesuffix(".statistics"), float(mean), float(std), share)
