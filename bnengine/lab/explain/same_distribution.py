"""Batch norm gives hidden units one distribution: the identities, what still drifts, and which parameters stop moving.

Before the activation the batch mean of a unit is beta and its standard deviation |gamma| sqrt(var/(var + eps)),
whatever the weights are. That does not determine the shape of the distribution, nor the values of single examples.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from ..._typing import Array
from ...layers import BatchNorm, Dense
from ...network.sequential import Sequential
from ...optim.optimizers import SGD
from .claim import Claim, Outcome, Part
from .drawing import BLUE, GREEN, ORANGE, PURPLE, named_curve, panels
from .nets import Norm, Seen, Training, look, perceptron
from .setting import Setting

U, EPS = 2.0**-24, 1e-5
STEPS, EVERY, RATE, EPOCHS, BATCH = 600, 20, 0.1, 6, 64
NETWORKS: dict[Norm, str] = {"none": "plain", "batch": "bn"}


def experiment(setting: Setting, seed: int) -> Outcome:
    """Identities, drift of mean and skewness in both hidden layers, and the change of parameters in each epoch."""
    figures, series = dict[str, float](), dict[str, Array]()
    for norm, name in NETWORKS.items():
        followed = _followed(setting, seed, norm)
        figures[f"{name}_identity"] = followed.pop("identity").max()
        for layer in (1, 2):
            mean, std, skew = followed[f"mean {layer}"], followed[f"std {layer}"], followed[f"skewness {layer}"]
            figures[f"{name}_drift_{layer}"] = float(np.mean(np.abs(mean[-1] - mean[0]) / std[0]))
            figures[f"{name}_std_{layer}"] = float(np.mean(np.abs(std[-1] / std[0] - 1)))
            figures[f"{name}_skewness_{layer}"] = float(np.mean(np.abs(skew[-1] - skew[0])))
            series[f"{name} {layer}"] = np.mean(np.abs(mean - mean[0]) / std[0], axis=1)
    figures["drift_ratio"] = figures["plain_drift_2"] / figures["bn_drift_2"]
    moved = _settling(setting, seed)
    series |= moved
    for name, changes in moved.items():
        figures[f"settling_{name}"] = float(changes[1:].mean() / changes[0])
    figures["gamma_over_W"] = figures["settling_gamma"] / figures["settling_W"]
    figures["beta_over_W"] = figures["settling_beta"] / figures["settling_W"]
    return Outcome({name: float(value) for name, value in figures.items()}, series)


def _network(setting: Setting, seed: int, norm: Norm) -> Sequential:
    widths = (setting.features, 64, 64, setting.classes)
    return perceptron(widths, norm=norm, eps=EPS, backend=setting.backend, seed=seed)


def _followed(setting: Setting, seed: int, norm: Norm) -> dict[str, Array]:
    """Mean, deviation and skewness of each hidden unit before its activation, over the training rows.

    The identities are checked after every step, on a batch where the others are not measured.
    """
    draw, network = setting.centered(seed), _network(setting, seed, norm)
    training = Training(network, SGD(), draw.x, draw.y, rate=RATE, seed=seed)
    measured: dict[str, list[Array]] = {}
    for done in training.every(1, EVERY * setting.steps(STEPS // EVERY)):
        if done % EVERY and norm == "none":
            continue
        seen = look(network, draw.x[:BATCH] if done % EVERY else draw.x, training=True)[0]
        units = [_identity(network, seen, at) for at in range(len(seen)) if isinstance(seen[at].layer, BatchNorm)]
        measured.setdefault("identity", []).append(np.asarray(max(units, default=0.0)))
        if done % EVERY:
            continue
        hidden = [each for each in seen[:-1] if isinstance(each.layer, BatchNorm if norm == "batch" else Dense)]
        for layer, each in enumerate(hidden, 1):
            mean, std = each.y.mean(axis=0), each.y.std(axis=0)
            skewness = np.mean((each.y - mean) ** 3, axis=0) / std**3
            for name, value in (("mean", mean), ("std", std), ("skewness", skewness)):
                measured.setdefault(f"{name} {layer}", []).append(value)
    return {name: np.asarray(values) for name, values in measured.items()}


def _identity(network: Sequential, seen: Sequence[Seen], at: int) -> float:
    """The distance of the batch mean from beta and of the deviation from |gamma| sqrt(var/(var + eps)), in u |y|."""
    layer, x, y = seen[at].layer, seen[at].x, seen[at].y
    assert isinstance(layer, BatchNorm)
    read = network.backend.to_numpy
    gamma, beta = (np.asarray(read(h.value), np.float64) for h in (layer.gamma, layer.beta) if h is not None)
    var, size = x.var(axis=0), U * np.abs(y).max(axis=0)
    std = np.abs(gamma) * np.sqrt(var / (var + EPS))
    return float(max(np.max(np.abs(y.mean(axis=0) - beta) / size), np.max(np.abs(y.std(axis=0) - std) / size)))


def _settling(setting: Setting, seed: int) -> dict[str, Array]:
    """The norm of the change of gamma, beta and W in each epoch, over all layers."""
    draw, network = setting.centered(seed), _network(setting, seed, "batch")
    training = Training(network, SGD(), draw.x, draw.y, rate=RATE, seed=seed)
    states = [network.state_dict()]
    for _ in range(setting.steps(EPOCHS, least=2)):
        training.run(training.steps_per_epoch)
        states.append(network.state_dict())
    moved = {}
    for kind in ("gamma", "beta", "W"):
        names = [name for name in states[0] if name.rpartition(".")[2] == kind]
        changes = pairwise(states)
        moved[kind] = np.asarray(
            [np.sqrt(sum(float(np.sum((new[n] - old[n]) ** 2)) for n in names)) for old, new in changes]
        )
    return moved


def draw(figure: Any, outcomes: Sequence[Outcome]) -> None:
    """Drift of the means by step, and the change in each epoch; means over the seeds."""
    left, right = panels(figure, ["Drift of the units' means, layer 2", "Change in an epoch over that in the first"])
    steps = EVERY * np.arange(len(outcomes[0].series["bn 2"]))
    for name, label, color in (("plain", "plain", GREEN), ("bn", "batch norm", BLUE)):
        named_curve(left, steps, np.mean([o.series[f"{name} 2"] for o in outcomes], axis=0), label, color)
    for kind, color in (("gamma", BLUE), ("beta", PURPLE), ("W", ORANGE)):
        changes = np.mean([o.series[kind] / o.series[kind][0] for o in outcomes], axis=0)
        named_curve(right, np.arange(1, len(changes) + 1), changes, kind, color)
    left.set_xlabel("step", fontsize=9)
    right.set_xlabel("epoch", fontsize=9)


PARTS = (
    Part("at every step the batch mean is beta and the deviation |gamma| sqrt(var/(var + eps)), to rounding",
         "the batch mean and deviation differ from what beta and gamma say", "bn_identity", "<=", 60, essential=True),
    Part("the means of the second hidden layer drift at most a third as far as without",
         "the means of the second hidden layer drift nearly as far as without", "drift_ratio", ">=", 3, essential=True),
    Part("the shape of the distribution is constant", "the shape of the distribution changes: its skewness moves",
         "bn_skewness_2", "<=", 0.1),
    Part("after the first epoch gamma changes less than W", "after the first epoch gamma changes as W does",
         "gamma_over_W", "<=", 0.9),
    Part("after the first epoch beta changes less than W", "after the first epoch beta changes as W does",
         "beta_over_W", "<=", 0.9),
)  # fmt: skip

CLAIM = Claim(
    name="same-distribution",
    title="Hidden units keep one distribution",
    statement="Batch norm gives hidden units the same distribution, governed by beta and gamma, though the weights "
    "before them change; gamma and beta hardly change after the first epoch while the weights do.",
    source="the course that goes with the derivation; Ioffe and Szegedy (2015) on internal covariate shift",
    method=f"Networks of two hidden layers are trained {STEPS} steps by SGD at {RATE:g}, and the distribution of every "
    f"unit over the training rows is recorded; then the change of gamma, beta and W in each of {EPOCHS} epochs.",
    parts=PARTS,
    experiment=experiment,
    draw=draw,
    labels={
        "plain_drift_2": "drift of the means of layer 2, in deviations of the first step, without",
        "bn_drift_2": "the same, batch norm",
        "plain_drift_1": "the same in layer 1, without",
        "bn_drift_1": "the same in layer 1, batch norm",
        "plain_std_2": "change of the deviations of layer 2, over the first, without",
        "bn_std_2": "the same, batch norm",
        "plain_skewness_2": "change of the skewness in layer 2, without",
        "settling_gamma": "change in epochs 2 to 6 over that in the first: gamma",
        "settling_beta": "the same, beta",
        "settling_W": "the same, W",
    },
)
