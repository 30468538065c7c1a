"""The gap between training and evaluation: how far running statistics are off, what that costs, and its cause.

Each cause is found by what removes the cost, not by a pattern. The loss of the training rows by the running statistics
is compared with that by the exact ones at the same weights; then with the running ones less what they still hold of
their initial values; with the exact mean in the first layer alone; and with running averages of the same decay and
batches, begun at the exact statistics and led on while no weight moves.
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
from ..network.sequential import Sequential
from ..ops.statistics import merge, moments
from ..runtime.flat import Statistics
from .population import population, source_of, walked
from .recalibration import statistics_of
from .scores import Measured, Scores, training_batches, usual_loss

SHIFT = 0.25  # in sigma, root mean square over channels: half of what a quarter of a range of two sigma is
NOISE = 10.0  # times what counts: batches that cost the training itself so much are small
SAME = 1e-4  # in sigma: statistics that were recalibrated, and are no running average
REPEATS, MOST_STEPS = 3, 1000  # of running averages at weights that stand still

CURES = {
    "none": "nothing is to be done",
    "not converged": "recalibrate, train for more steps, or take a smaller decay (None: all batches count alike)",
    "weights moving faster than the average": "recalibrate, lower the learning rate towards the end, or take a smaller "
    "decay",
    "uncentred inputs": "take each feature's mean off the inputs (scaling 'center' or 'standardize'), or recalibrate",
    "small batches": "train with larger batches (16 rows or more), freeze the normalization after "
    "a while, or take a decay nearer to 1",
    "dropout": "put dropout behind the last BatchNorm only, or recalibrate",
    "data shift": "find out what differs in the data; adapt(network, data, prior=N) takes their own statistics, which "
    "helps against offset and scale, and harms where classes are missing",
}


class Off(NamedTuple):
    """How far statistics are from the exact ones of the training data, root mean squares over the channels.

    mean: |mean - exact| in units of the exact sigma = sqrt(var + eps); std: |sigma / exact sigma - 1|.
    """

    mean: float
    std: float

    @property
    def size(self) -> float:
        """Both in one."""
        return sqrt(self.mean**2 + self.std**2)


class LayerGap(NamedTuple):
    """One BatchNorm: the share its steps keep, how many made its statistics, what they remember, how far off they are.

    decay d (None: all batches alike). steps t: those of the training where they are known and the count of rows agrees,
    else count / rows of a step, too few where an epoch's last batch is a short one. remembered: the batches that an
    average with these weights is as good as, (sum w)^2 / sum w^2 = (1 - d^t)/(1 + d^t) (1 + d)/(1 - d). initial: the
    weight still on mean 0 and variance 1, d^t. running, data: of the running statistics, and of the data's own.
    """

    name: str
    channels: int
    eps: float
    decay: float | None
    steps: float
    remembered: float
    initial: float
    running: Off
    data: Off


@dataclass(frozen=True)
class Gap:
    """Why training and evaluation differ: one `cause`, the sentence that tells it from the others, its `cure`.

    `scores`: loss and accuracy by (rows, statistics); `offset`: |mean| of the network's inputs over their spread,
    sqrt(sum mean^2 / sum var); `explained`: what each cause accounts for, in units of what counts, `Measured.cost`.
    """

    cause: str
    why: str
    layers: tuple[LayerGap, ...]
    scores: dict[tuple[str, str], Measured]
    offset: float
    explained: dict[str, float]
    batch_size: int

    @property
    def cure(self) -> str:
        """What to do about it."""
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
                {"rows": rows, "statistics": kind, **found._asdict()} for (rows, kind), found in self.scores.items()
            ],
            "input_offset": self.offset,
            "explained": self.explained,
            "batch_size": self.batch_size,
        }

    def __str__(self) -> str:
        text = [f"cause: {self.cause}", f"       {self.why}", f"cure:  {self.cure}", ""]
        text.append("layer  channels    steps  remembered  on initial   running off by   the data's own by")
        text += [
            f"{one.name:<6}{one.channels:9,}{one.steps:9,.0f}{one.remembered:12,.1f}{one.initial:12.2g}"
            f"{one.running.mean:10.3f} {one.running.std:7.1%}{one.data.mean:10.3f} {one.data.std:7.1%}"
            for one in self.layers
        ]
        text += ["(off by: of the means in sigma, of sigma itself; from the exact training statistics)", ""]
        text.append(f"{'rows':<10}{'statistics':<24}{'loss':>10}{'accuracy':>10}")
        for (rows, kind), found in self.scores.items():
            right = "" if found.accuracy is None else f"{found.accuracy:10.4f}"
            text.append(f"{rows:<10}{kind:<24}{found.loss:10.4g}{right}")
        return "\n".join(text)


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
    """Find out why `network` does worse in evaluation than in training, or on `data` than on what it was trained on.

    `data`, `training`: a Source, arrays (x, y) of ready features, or a raw `Dataset`; `data` may lack targets. Without
    `training`, `data` are taken for the training rows, and a shift cannot be seen. `batch_size`, `accumulate`: those of
    the training. `steps`: how many it took, None for those that make the rows that the statistics count. `loss`: what
    it was trained for, None for the usual one of the targets.

    A cost counts from 0.05 in loss or 0.02 in accuracy on (`Measured.cost`); of these three the greatest is named:
    - evaluating training rows by the running statistics instead of the exact ones: "uncentred inputs" where the exact
      mean of the first layer alone, "not converged" where taking out the initial values removes at least half of it;
      "small batches" where running averages at standing weights are as far off or half of that, "dropout" where they
      are so with it, else "weights moving faster than the average".
    - evaluating by exact statistics instead of those of batches: "small batches"; so, too, where nothing counts but
      that training by batches costs ten times as much as counts, which evaluation is spared.
    - data that are off by 0.25 sigma and by four standard errors in some layer: "data shift".

    The network is left as it is. Raises InputError where there is no BatchNorm, or nothing was collected.
    """
    given = source_of("gap", network, data)
    train = given if training is None else source_of("gap", network, training)
    scores = Scores(network, usual_loss("gap", network, train) if loss is None else get_loss(loss))
    exact = population(network, train, what="gap")
    own = exact if training is None else population(network, given, what="gap")
    running = statistics_of(network)
    rows, offset = _inputs(train)
    found: dict[tuple[str, str], Measured] = {
        ("training", "running"): scores.by(running, train),
        ("training", "exact"): scores.by(exact, train),
        ("training", f"each batch of {batch_size}"): scores.by_batches(training_batches(train, batch_size, seed=0)),
    }
    least = rows
    if training is not None:
        least = min(rows, _inputs(given)[0])
        if next(training_batches(given, 2, seed=0)).y is not None:
            found["data", "running"] = scores.by(running, given)
            found["data", "exact of training"] = scores.by(exact, given)
            found["data", "their own"] = scores.by(own, given)
    layers = tuple(_layers(network, running, exact, own, rows, batch_size * accumulate, steps))
    # a mean of n rows is off by 1/sqrt(n) sigma, its standard deviation by 1/sqrt(2n) of it: sqrt(1.5/n) together
    chance = max(SHIFT, 4 * sqrt(1.5 / least)) if training is not None else inf
    case = _Case(scores, train, running, exact, layers, found, batch_size, offset, chance)
    cause, why = case.judge()
    return Gap(cause, why, layers, found, offset, case.explained, batch_size)


def _inputs(source: Source) -> tuple[int, float]:
    """How many rows there are, and |mean| of their features over their spread, sqrt(sum mean^2 / sum var)."""
    rows, found = 0, np.zeros((3, 1))
    for batch in walked(source, "gap"):
        rows += len(batch.x)
        part = moments.reference(np.asarray(batch.x, np.float64)).batch
        found = part if rows == len(batch.x) else merge.reference(found, part)
    return rows, float(np.sqrt(np.sum(found[1] ** 2) / max(float(np.sum(found[2])), 1e-300)))


def _layers(
    network: Sequential, running: Mapping[str, Array], exact: Mapping[str, Array], own: Mapping[str, Array],
    rows: int, per_step: int, taken: int | None,
) -> Iterator[LayerGap]:  # fmt: skip
    kinds = dict(walk(network.layers))
    handles = network.named_handles()
    for name, found in running.items():
        place, handle = name.removesuffix(".statistics"), handles[name]
        assert isinstance(handle, Statistics)
        eps, right = getattr(kinds[place], "eps", 1e-5), exact[name]
        steps = _steps(float(found[0, 0]) / float(right[0, 0]), rows, per_step, taken)
        d, off = handle.decay, _off(found, right, eps)
        left = 0.0 if d is None or off.size < SAME else d**steps
        remembered = steps if d is None or off.size < SAME else (1 - left) / (1 + left) * (1 + d) / (1 - d)
        yield LayerGap(place, len(found[0]), eps, d, steps, remembered, left, off, _off(own[name], right, eps))


def _steps(epochs: float, rows: int, per_step: int, taken: int | None) -> float:
    """The steps of the training, if statistics of so many epochs can be theirs: recalibrated ones are not."""
    least = epochs * rows / per_step
    if taken is not None and 0.8 * least <= taken <= 1.25 * epochs * ceil(rows / per_step):
        return float(taken)
    return least


def _off(found: Array, right: Array, eps: float) -> Off:
    with np.errstate(all="ignore"):
        sigma = np.sqrt(right[2] + eps)
        mean = np.sqrt(np.mean(((found[1] - right[1]) / sigma) ** 2))
        std = np.sqrt(np.mean((np.sqrt(found[2] + eps) / sigma - 1) ** 2))
    return Off(float(mean), float(std))


@dataclass
class _Case:
    """All that a verdict is reached from."""

    scores: Scores
    train: Source
    running: dict[str, Array]
    exact: dict[str, Array]
    layers: tuple[LayerGap, ...]
    found: dict[tuple[str, str], Measured]
    batch_size: int
    offset: float
    chance: float
    explained: dict[str, float] = field(default_factory=dict)

    def judge(self) -> tuple[str, str]:
        """The cause and what tells it; on the way, what each possible one explains."""
        by_running, by_exact, by_batches = list(self.found.values())[:3]
        costs = {"running statistics": (by_running, by_exact), "batches": (by_exact, by_batches)}
        far = max(self.layers, key=lambda one: one.data.size)
        if far.data.size > self.chance:
            costs["data shift"] = (self.found.get(("data", "exact of training"), by_exact), by_exact)
        self.explained = explained = {name: a.cost(b) for name, (a, b) in costs.items()}
        matters = [name for name in costs if explained[name] >= 1]
        if "data shift" in costs and ("data", "running") not in self.found:
            matters.append("data shift")  # without targets the distance alone has to tell
        if not matters and by_batches.cost(by_exact) >= NOISE:
            told = f"by the exact statistics the loss is {by_exact.loss:.3g}, and in training {by_batches.loss:.3g}: "
            return "small batches", told + f"that is the noise of the statistics of {self.batch_size} rows"
        if not matters:
            return "none", "no statistics cost a loss of 0.05 or an accuracy of 0.02"
        first = max(matters, key=lambda name: explained[name])
        if first == "data shift":
            return first, f"layer {far.name} sees the data {far.data.size:.2f} sigma away from the training"
        if first == "batches":
            told = f"by the exact statistics the loss is {by_exact.loss:.3g}, by batches of {self.batch_size} "
            return "small batches", f"{told}{by_batches.loss:.3g}: the weights suit the batches' noise"
        return self._stale(by_running)

    def _stale(self, by_running: Measured) -> tuple[str, str]:
        """What makes the running statistics bad."""
        explained, cost = self.explained, self.explained["running statistics"]

        def removed(statistics: Mapping[str, Array]) -> float:
            return by_running.cost(self.scores.by(statistics, self.train))

        first, old = next(iter(self.running.items()))
        centred = {**self.running, first: np.stack([old[0], self.exact[first][1], old[2]])}
        explained["uncentred inputs"] = removed(centred) if self.offset > 1 else 0.0
        explained["not converged"] = removed(self._without_initial())
        name = max(("uncentred inputs", "not converged"), key=lambda name: explained[name])
        if explained[name] >= cost / 2 and name == "uncentred inputs":
            return name, f"their mean is {self.offset:.1f} times their spread: every change of a weight moves the means"
        worst = max(self.layers, key=lambda one: one.initial)
        if explained[name] >= cost / 2:
            return name, f"after {worst.steps:,.0f} steps {worst.initial:.2g} of the weight is on the initial values"
        explained["small batches"] = cost * self._at_rest(dropout=False)
        if explained["small batches"] >= cost / 2:
            rows = min(one.remembered for one in self.layers) * self.batch_size
            return "small batches", f"an average over {rows:,.0f} rows is this far off even while no weight moves"
        explained["dropout"] = cost * self._at_rest(dropout=True) if self._drops() else 0.0
        if explained["dropout"] >= cost / 2:
            return "dropout", "with dropout a BatchNorm behind it sees another variance than without"
        most = max(self.layers, key=lambda one: one.running.size)
        told = f"layer {most.name} is {most.running.size:.2f} sigma behind, and would not be if no weight moved"
        return "weights moving faster than the average", told

    def _without_initial(self) -> dict[str, Array]:
        """Running statistics less mean 0 and variance 1 with the weight that is still on them."""
        freed = {}
        for one in self.layers:
            count, mean, var = self.running[f"{one.name}.statistics"]
            rest = max(1 - one.initial, 1e-12)
            freed[f"{one.name}.statistics"] = np.stack([count, mean / rest, np.maximum(var - one.initial, 0) / rest])
        return freed

    def _drops(self) -> bool:
        return any(isinstance(layer, Dropout) for _, layer in walk(self.scores.network.layers))

    def _at_rest(self, *, dropout: bool) -> float:
        """The distance of running averages at standing weights from the exact statistics, as a share of that measured.

        In the layer that is furthest off. Distances over all its channels scatter less than losses do.
        """
        far = max(self.layers, key=lambda one: one.running.size)
        steps = min(ceil(3 / (1 - max((one.decay or 0.0) for one in self.layers))), MOST_STEPS)
        name, off = f"{far.name}.statistics", list[float]()
        for repeat in range(REPEATS):
            options: dict[str, Any] = {"seed": 1000 * repeat, "dropout": dropout}
            found = self.scores.running(self.exact, self.train, self.batch_size, steps, **options)
            off.append(_off(found[name], self.exact[name], far.eps).size)
        return float(np.mean(off)) / far.running.size
