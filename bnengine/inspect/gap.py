"""Explain the gap between training and evaluation: how far running statistics are off, the cost, and the cause.

A cause counts if removing it removes the cost. The loss of the training rows with the running statistics is compared
with the loss with the exact ones at the same weights. Then with running statistics without what remains of their
initial values; with the exact mean in the first layer alone; and with running averages of the same decay and batches
that begin at the exact statistics while the weights do not change.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from math import ceil, inf, sqrt
from typing import Any, NamedTuple

import numpy as np

from .._typing import Array
from ..data import Source
from ..layers import Dropout
from ..layers.structure import walk
from ..losses import LossFunction, get_loss
from ..metrics.tables import table_text
from ..network.sequential import Sequential
from ..ops.statistics import merge, moments
from ..runtime.flat import Statistics
from .population import batches_with_variance, population, source_of
from .recalibration import statistics_of
from .scores import Score, Scores, loss_for, training_batches

SHIFT = 0.25  # in sigma, root mean square over channels
NOISE = 10.0  # a cost of batch statistics in training, in units of `Score.cost`, that makes batches small
SAME = 1e-4  # in sigma: closer statistics were recalibrated and are no running average
REPEATS, MOST_STEPS = 3, 1000  # of running averages at fixed weights

LAYER_COLUMNS = (
    "layer", "channels", "steps", "remembered", "initial", "running off by", "data off by",
)  # fmt: skip
CURES = {
    "none": "nothing",
    "not converged": "recalibrate, train for more steps, or take a smaller decay (None: all batches count alike)",
    "weights moving faster than the average": "recalibrate, lower the learning rate towards the end, or take a smaller "
    "decay",
    "uncentred inputs": "subtract each feature's mean (scaling 'center' or 'standardize'), or recalibrate",
    "small batches": "train with larger batches (16 rows or more), freeze the normalization after "
    "a while, or take a decay nearer to 1",
    "dropout": "use dropout only after the last BatchNorm, or recalibrate",
    "data shift": "find out what differs in the data; adapt(network, data, prior=N) blends in their statistics, which "
    "corrects offset and scale, and harms if classes are missing",
}


class Deviation(NamedTuple):
    """The distance of statistics from the exact ones of the training data; root mean squares over the channels.

    mean: |mean - exact| in units of the exact sigma = sqrt(var + eps). std: |sigma / exact sigma - 1|.
    """

    mean: float
    std: float

    @property
    def size(self) -> float:
        """Mean and std combined."""
        return sqrt(self.mean**2 + self.std**2)


class LayerGap(NamedTuple):
    """The statistics of one BatchNorm.

    decay: d, the share of the old value that a step keeps; None: all batches count alike. steps: t, those of the
    training if they are known and the count of rows agrees, else count / rows of a step, too few if an epoch ends with
    a short batch. remembered: the number of batches whose mean is as precise, (sum w)^2 / sum w^2 = (1 - d^t)/(1 + d^t)
    (1 + d)/(1 - d). initial: d^t, the weight still on mean 0 and variance 1. running, data: the deviation of the
    running statistics, and of those of the data.
    """

    name: str
    channels: int
    eps: float
    decay: float | None
    steps: float
    remembered: float
    initial: float
    running: Deviation
    data: Deviation


@dataclass(frozen=True)
class Gap:
    """Why training and evaluation differ.

    cause: one of `CURES`. why: the observation that singles it out. scores: by (rows, statistics). offset: |mean| of
    the network's inputs over their spread, sqrt(sum mean^2 / sum var). explained: the cost that each cause accounts
    for, in units of `Score.cost`.
    """

    cause: str
    why: str
    layers: tuple[LayerGap, ...]
    scores: dict[tuple[str, str], Score]
    offset: float
    explained: dict[str, float]
    batch_size: int

    @property
    def cure(self) -> str:
        """What to do about the cause."""
        return CURES[self.cause]

    def to_json(self) -> dict[str, Any]:
        """The figures as JSON values."""
        return {
            "cause": self.cause,
            "why": self.why,
            "cure": self.cure,
            "layers": [
                {**layer._asdict(), "running": layer.running._asdict(), "data": layer.data._asdict()}
                for layer in self.layers
            ],
            "scores": [
                {"rows": rows, "statistics": kind, **score._asdict()} for (rows, kind), score in self.scores.items()
            ],
            "input_offset": self.offset,
            "explained": self.explained,
            "batch_size": self.batch_size,
        }

    def __str__(self) -> str:
        layers = [
            (
                layer.name, f"{layer.channels:,}", f"{layer.steps:,.0f}", f"{layer.remembered:,.1f}",
                f"{layer.initial:.2g}", *(f"{off.mean:.3f} {off.std:.1%}" for off in (layer.running, layer.data)),
            )
            for layer in self.layers
        ]  # fmt: skip
        scores = [
            (rows, kind, f"{score.loss:.4g}", "" if score.accuracy is None else f"{score.accuracy:.4f}")
            for (rows, kind), score in self.scores.items()
        ]
        return "\n".join([
            f"cause: {self.cause}", f"       {self.why}", f"cure:  {self.cure}", "",
            table_text(LAYER_COLUMNS, layers, numbers=range(1, 7)),
            "(off by: of the means in sigma, of sigma itself; from the exact training statistics)", "",
            table_text(("rows", "statistics", "loss", "accuracy"), scores, numbers=(2, 3)),
        ])  # fmt: skip


def gap(
    network: Sequential,
    data: Any,
    *,
    training: Any = None,
    batch_size: int = 64,
    accumulate: int = 1,
    steps: int | None = None,
    loss: LossFunction | str | None = None,
) -> Gap:
    """Find out why `network` does worse in evaluation than in training, or worse on `data` than on its training data.

    A cost counts from 0.05 in loss or 0.02 in accuracy on (`Score.cost`). The largest of these three is named:

    - evaluating training rows with the running statistics instead of the exact ones. It is "uncentred inputs" if the
      exact mean of the first layer alone removes at least half of it, "not converged" if removing the initial values
      does; "small batches" if running averages at fixed weights are at least half as far off, "dropout" if they are
      with it; else "weights moving faster than the average".
    - evaluating with exact statistics instead of those of batches: "small batches". Also if nothing counts but training
      with batch statistics costs ten times that much, which evaluation avoids.
    - data that deviate by 0.25 sigma and by four standard errors in some layer: "data shift".

    The network does not change.

    Args:
        network: a trained network with a BatchNorm.
        data: a Source, arrays (x, y) of ready features, or a raw `Dataset`; targets may be missing.
        training: the training data, in the same forms; None takes `data`, and a shift cannot be found.
        batch_size: rows of a batch of the training.
        accumulate: batches of a step of the training.
        steps: how many the training took; None computes it from the rows that the statistics count.
        loss: that of the training; None for the usual one of the targets.

    Raises:
        InputError: no BatchNorm, no collected statistics, or unusable data.
    """
    judged = source_of("gap", network, data)
    train = judged if training is None else source_of("gap", network, training)
    scores = Scores(network, loss_for("gap", network, train) if loss is None else get_loss(loss))
    exact = population(network, train, what="gap")
    of_data = exact if training is None else population(network, judged, what="gap")
    running = statistics_of(network)
    rows, offset = _inputs(train)
    results: dict[tuple[str, str], Score] = {
        ("training", "running"): scores.by(running, train),
        ("training", "exact"): scores.by(exact, train),
        ("training", f"each batch of {batch_size}"): scores.by_batches(training_batches(train, batch_size, seed=0)),
    }
    least = rows
    if training is not None:
        least = min(rows, _inputs(judged)[0])
        if next(training_batches(judged, 2, seed=0)).y is not None:
            results["data", "running"] = scores.by(running, judged)
            results["data", "exact of training"] = scores.by(exact, judged)
            results["data", "their own"] = scores.by(of_data, judged)
    layers = tuple(_layers(network, running, exact, of_data, rows, batch_size * accumulate, steps))
    # The standard error of a mean of n rows is sigma/sqrt(n), that of sigma is sigma/sqrt(2n): sqrt(1.5/n) together.
    chance = max(SHIFT, 4 * sqrt(1.5 / least)) if training is not None else inf
    diagnosis = _Diagnosis(scores, train, running, exact, layers, results, batch_size, offset, chance)
    cause, why = diagnosis.cause()
    return Gap(cause, why, layers, results, offset, diagnosis.explained, batch_size)


def _inputs(source: Source) -> tuple[int, float]:
    """The number of rows, and |mean| of their features over their spread, sqrt(sum mean^2 / sum var)."""
    rows, total = 0, np.zeros((3, 1))
    for batch in batches_with_variance(source, "gap"):
        rows += len(batch.x)
        part = moments.reference(np.asarray(batch.x, np.float64)).batch
        total = part if rows == len(batch.x) else merge.reference(total, part)
    return rows, float(np.sqrt(np.sum(total[1] ** 2) / max(float(np.sum(total[2])), 1e-300)))


def _layers(
    network: Sequential, running: Mapping[str, Array], exact: Mapping[str, Array], of_data: Mapping[str, Array],
    rows: int, per_step: int, taken: int | None,
) -> Iterator[LayerGap]:  # fmt: skip
    kinds = dict(walk(network.layers))
    handles = network.named_handles()
    for name, statistics in running.items():
        place, handle = name.removesuffix(".statistics"), handles[name]
        assert isinstance(handle, Statistics)
        eps, right = getattr(kinds[place], "eps", 1e-5), exact[name]
        steps = _steps(float(statistics[0, 0]) / float(right[0, 0]), rows, per_step, taken)
        d, off = handle.decay, _deviation(statistics, right, eps)
        left = 0.0 if d is None or off.size < SAME else d**steps
        remembered = steps if d is None or off.size < SAME else (1 - left) / (1 + left) * (1 + d) / (1 - d)
        yield LayerGap(
            place, len(statistics[0]), eps, d, steps, remembered, left, off, _deviation(of_data[name], right, eps)
        )


def _steps(epochs: float, rows: int, per_step: int, taken: int | None) -> float:
    """The steps of the training if statistics over that many epochs can come from them: recalibrated ones do not."""
    least = epochs * rows / per_step
    if taken is not None and 0.8 * least <= taken <= 1.25 * epochs * ceil(rows / per_step):
        return float(taken)
    return least


def _deviation(statistics: Array, exact: Array, eps: float) -> Deviation:
    with np.errstate(all="ignore"):
        sigma = np.sqrt(exact[2] + eps)
        mean = np.sqrt(np.mean(((statistics[1] - exact[1]) / sigma) ** 2))
        std = np.sqrt(np.mean((np.sqrt(statistics[2] + eps) / sigma - 1) ** 2))
    return Deviation(float(mean), float(std))


@dataclass
class _Diagnosis:
    """What the cause is inferred from."""

    scores: Scores
    train: Source
    running: dict[str, Array]
    exact: dict[str, Array]
    layers: tuple[LayerGap, ...]
    results: dict[tuple[str, str], Score]
    batch_size: int
    offset: float
    chance: float
    explained: dict[str, float] = field(default_factory=dict)

    def cause(self) -> tuple[str, str]:
        """The cause and the observation for it; fills `explained`."""
        by_running, by_exact, by_batches = list(self.results.values())[:3]
        costs = {"running statistics": (by_running, by_exact), "batches": (by_exact, by_batches)}
        far = max(self.layers, key=lambda one: one.data.size)
        if far.data.size > self.chance:
            costs["data shift"] = (self.results.get(("data", "exact of training"), by_exact), by_exact)
        self.explained = explained = {name: a.cost(b) for name, (a, b) in costs.items()}
        matters = [name for name in costs if explained[name] >= 1]
        if "data shift" in costs and ("data", "running") not in self.results:
            matters.append("data shift")  # without targets only the distance is known
        if not matters and by_batches.cost(by_exact) >= NOISE:
            losses = (
                f"the loss is {by_exact.loss:.3g} with the exact statistics and {by_batches.loss:.3g} in training: "
            )
            return "small batches", losses + f"that is the noise of the statistics of {self.batch_size} rows"
        if not matters:
            return "none", "no statistics cost 0.05 in loss or 0.02 in accuracy"
        first = max(matters, key=lambda name: explained[name])
        if first == "data shift":
            return first, f"layer {far.name} sees the data {far.data.size:.2f} sigma away from the training"
        if first == "batches":
            losses = (
                f"the loss is {by_exact.loss:.3g} with the exact statistics and {by_batches.loss:.3g} with those of "
            )
            return "small batches", f"{losses}batches of {self.batch_size}: the weights fit the noise of the batches"
        return self._stale(by_running)

    def _stale(self, by_running: Score) -> tuple[str, str]:
        """The cause of bad running statistics."""
        explained, cost = self.explained, self.explained["running statistics"]

        def removed(statistics: Mapping[str, Array]) -> float:
            return by_running.cost(self.scores.by(statistics, self.train))

        first, old = next(iter(self.running.items()))
        centered = {**self.running, first: np.stack([old[0], self.exact[first][1], old[2]])}
        explained["uncentred inputs"] = removed(centered) if self.offset > 1 else 0.0
        explained["not converged"] = removed(self._without_initial())
        name = max(("uncentred inputs", "not converged"), key=lambda name: explained[name])
        if explained[name] >= cost / 2 and name == "uncentred inputs":
            return name, f"their mean is {self.offset:.1f} times their spread: every change of a weight moves the means"
        worst = max(self.layers, key=lambda one: one.initial)
        if explained[name] >= cost / 2:
            return name, f"after {worst.steps:,.0f} steps the initial values still have a weight of {worst.initial:.2g}"
        explained["small batches"] = cost * self._at_rest(dropout=False)
        if explained["small batches"] >= cost / 2:
            rows = min(one.remembered for one in self.layers) * self.batch_size
            return "small batches", f"an average over {rows:,.0f} rows is this far off even at fixed weights"
        explained["dropout"] = cost * self._at_rest(dropout=True) if self._drops() else 0.0
        if explained["dropout"] >= cost / 2:
            return "dropout", "dropout changes the variance that the next BatchNorm sees"
        most = max(self.layers, key=lambda one: one.running.size)
        why = f"layer {most.name} lags by {most.running.size:.2f} sigma, and would not at fixed weights"
        return "weights moving faster than the average", why

    def _without_initial(self) -> dict[str, Array]:
        """Running statistics without the part of the initial mean 0 and variance 1."""
        freed = {}
        for one in self.layers:
            count, mean, var = self.running[f"{one.name}.statistics"]
            rest = max(1 - one.initial, 1e-12)
            freed[f"{one.name}.statistics"] = np.stack([count, mean / rest, np.maximum(var - one.initial, 0) / rest])
        return freed

    def _drops(self) -> bool:
        return any(isinstance(layer, Dropout) for _, layer in walk(self.scores.network.layers))

    def _at_rest(self, *, dropout: bool) -> float:
        """The deviation of running averages at fixed weights, as a share of the measured one.

        It is taken in the layer with the largest deviation, over all channels, and scatters less than losses do.
        """
        far = max(self.layers, key=lambda one: one.running.size)
        steps = min(ceil(3 / (1 - max((one.decay or 0.0) for one in self.layers))), MOST_STEPS)
        name, off = f"{far.name}.statistics", list[float]()
        for repeat in range(REPEATS):
            options: dict[str, Any] = {"seed": 1000 * repeat, "dropout": dropout}
            averaged = self.scores.running(self.exact, self.train, self.batch_size, steps, **options)
            off.append(_deviation(averaged[name], self.exact[name], far.eps).size)
        return float(np.mean(off)) / far.running.size
