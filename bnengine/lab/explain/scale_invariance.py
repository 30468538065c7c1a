"""BN(cW) = BN(W): the effect of eps, and the meaning of learning rate and weight decay.

The output does not change along W, so the gradient is at right angles to it except for eps:
w . dL/dw = gamma dL/dgamma eps/(var + eps). Under SGD the weights can only grow, |W|^2 by rate^2 |g|^2 a step, and a
step turns a larger W less: the effective rate is rate/|W|^2.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from ..._typing import Array
from ...network.sequential import Sequential
from ...optim.optimizers import SGD, Adam, Optimizer
from .claim import Claim, Outcome, Part
from .drawing import BLUE, GREEN, ORANGE, named_curve, panels
from .nets import Norm, Training, accuracy, look, perceptron
from .setting import Setting

U = 2.0**-53
EPS = (1e-30, 1e-5, 1e-3, 0.1)
STEPS, RATE, HUGE = 100, 0.1, 100.0
DECAY = 0.1  # of the weights: 30 steps at RATE leave 74 % of them
OPTIMIZERS: dict[str, Optimizer] = {"SGD": SGD(), "momentum": SGD(momentum=0.9), "Adam": Adam()}


def experiment(setting: Setting, seed: int) -> Outcome:
    """The figures of one seed, in float64 except for the trainings at huge rates."""
    figures = {"identity": max(_identity(setting, seed, eps) for eps in EPS)}
    for name, factor in (("tenth", 0.1), ("thousandth", 0.001)):
        figures[name] = _scaled(setting, seed, factor)
    figures["trajectory"] = _trajectory(setting, seed)
    figures["decayed"] = _decayed(setting, seed)
    series = {}
    for name in OPTIMIZERS:
        squares, moved = _growth(setting, seed, name)
        series[name] = squares / squares[0]
        figures[f"growth_{name}"] = abs((squares[-1] - squares[0]) / moved - 1)
    figures["huge_bn"] = _huge(setting, seed, "batch", {"0.W": HUGE, "3.W": HUGE})
    figures["huge_plain"] = _huge(setting, seed, "none", {"0.W": HUGE, "2.W": HUGE})
    figures["all_ten"] = _huge(setting, seed, "batch", {}, rest=10.0)
    return Outcome(figures, series)


def _network(
    setting: Setting, seed: int, *, eps: float = 1e-5, norm: Norm = "batch", dtype: str = "float64"
) -> Sequential:
    widths = (setting.features, 64, 64, setting.classes)
    return perceptron(widths, norm=norm, eps=eps, dtype=dtype, backend=setting.backend, seed=seed)


def _identity(setting: Setting, seed: int, eps: float) -> float:
    """|w . dw - gamma dgamma eps/(var + eps)| over u |w| |dw|, the largest of the first layer's channels."""
    draw, network = setting.centered(seed), _network(setting, seed, eps=eps)
    network.named_parameters()["1.gamma"][...] *= 1.5
    seen, grads = look(network, draw.x[:64], draw.y[:64], training=True)
    values = {name: np.asarray(network.backend.to_numpy(p)) for name, p in network.named_parameters().items()}
    var = seen[0].y.var(axis=0)
    w, dw = values["0.W"], grads["0.W"]
    along = (w * dw).sum(axis=0) - values["1.gamma"] * grads["1.gamma"] * eps / (var + eps)
    return float(np.max(np.abs(along) / (U * np.linalg.norm(w, axis=0) * np.linalg.norm(dw, axis=0))))


def _scaled(setting: Setting, seed: int, factor: float) -> float:
    """The largest change of an output when the hidden weights are multiplied, over the largest output; eps 1e-5."""
    draw, network = setting.centered(seed), _network(setting, seed)
    before = look(network, draw.x[:64], training=True)[0][-1].y
    scale(network, factor)
    after = look(network, draw.x[:64], training=True)[0][-1].y
    return float(np.abs(after - before).max() / np.abs(before).max())


def scale(network: Sequential, factor: float) -> None:
    """Multiply the weights before each BatchNorm."""
    for name in ("0.W", "3.W"):
        network.named_parameters()[name][...] *= factor


def _trajectory(setting: Setting, seed: int) -> float:
    """The distance of (c W, c^2 rate) from (W, rate) after training the hidden weights, eps 1e-30; over |W|."""
    draw, weights = setting.centered(seed), []
    for factor in (1.0, 0.3):
        network = _network(setting, seed, eps=1e-30)
        scale(network, factor)
        rates = {"0.W": RATE * factor**2, "3.W": RATE * factor**2}
        _descend(network, draw.x, draw.y, rates, RATE, setting.steps(30))
        weights.append(np.asarray(network.backend.to_numpy(network.named_parameters()["0.W"], copy=True)) / factor)
    return float(np.abs(weights[0] - weights[1]).max() / np.abs(weights[0]).max())


def _decayed(setting: Setting, seed: int) -> float:
    """The distance of hidden weights with decay from those without, at a growing rate, eps 1e-30; over |W|.

    W <- k W - rate g(W), k = 1 - rate decay, is V <- V - rate/k^(2t+1) g(V) for W = k^t V, as g(W) = g(V)/k^t.
    """
    draw, factor, steps, weights = setting.centered(seed), 1 - RATE * DECAY, setting.steps(30), []
    for rate, options in ((RATE, {"decay": DECAY}), (RATE / factor, {"growth": factor**-2})):
        network = _network(setting, seed, eps=1e-30)
        _descend(network, draw.x, draw.y, {"0.W": rate, "3.W": rate}, RATE, steps, **options)
        weights.append(np.asarray(network.backend.to_numpy(network.named_parameters()["0.W"], copy=True)))
    return float(np.abs(weights[0] - factor**steps * weights[1]).max() / np.abs(weights[0]).max())


def _descend(
    network: Sequential, x: Array, y: Array, rates: dict[str, float], rest: float, steps: int,
    *, decay: float = 0.0, growth: float = 1.0,
) -> None:  # fmt: skip
    """Gradient descent with a rate for each parameter by name; the last forward's moments become statistics.

    The parameters of `rates` decay, and their rates grow by the factor `growth` in every step.
    """
    backend = network.backend
    with np.errstate(all="ignore"):
        for t in range(steps):
            rows = np.arange(t * 64, t * 64 + 64) % len(x)
            grads = look(network, x[rows], y[rows], training=True)[1]
            for name, parameter in network.named_parameters().items():
                rate = rates[name] * growth**t if name in rates else rest
                if decay and name in rates:
                    parameter[...] *= 1 - rate * decay
                parameter[...] -= backend.asarray(rate * grads[name], network.dtype)
        network.statistics.array[...] = network.forward(np.asarray(x, network.dtype), training=True).pending.array


def _growth(setting: Setting, seed: int, name: str) -> tuple[Array, float]:
    """|W|^2 of the first layer after each step, and the sum of |change of W|^2."""
    draw, network = setting.centered(seed), _network(setting, seed, eps=1e-30)
    rate = 0.003 if name == "Adam" else RATE
    training = Training(network, OPTIMIZERS[name], draw.x, draw.y, rate=rate, seed=seed)
    weights = network.named_parameters()["0.W"]
    states = [network.backend.to_numpy(weights, copy=True) for _ in training.every(1, setting.steps(STEPS))]
    moved = sum(float(np.sum((b - a) ** 2)) for a, b in pairwise(states))
    return np.asarray([float(np.sum(w**2)) for w in states]), moved


def _huge(setting: Setting, seed: int, norm: Norm, rates: dict[str, float], rest: float = RATE) -> float:
    draw, network = setting.centered(seed), _network(setting, seed, norm=norm, dtype="float32")
    _descend(network, draw.x, draw.y, rates, rest, setting.steps(300))
    return accuracy(network, draw.x_valid, draw.y_valid)


def draw(figure: Any, outcomes: Sequence[Outcome]) -> None:
    """|W|^2 of the first layer by step; means over the seeds."""
    (panel,) = panels(figure, ["Squared norm of the first weights, over the first"])
    for name, color in zip(OPTIMIZERS, (BLUE, GREEN, ORANGE), strict=True):
        mean = np.mean([outcome.series[name] for outcome in outcomes], axis=0)
        named_curve(panel, np.arange(len(mean)), mean, name, color)
    panel.set_xlabel("step", fontsize=9)


PARTS = (
    Part("the gradient is at right angles to the weights except for the term in eps, to rounding",
         "the gradient has a part along the weights that eps does not explain", "identity", "<=", 100, essential=True),
    Part("weights a tenth as large give the same outputs", "weights a tenth as large give other outputs",
         "tenth", "<=", 0.01, essential=True),
    Part("weights a thousandth as large do too",
         "weights a thousandth as large give other outputs: their variance is near eps",
         "thousandth", "<=", 0.1),
    Part("weights c W at the rate c^2 follow the same path",
         "weights c W at the rate c^2 follow another path", "trajectory", "<=", 1e-9, essential=True),
    Part("weight decay equals a growing rate, and so acts on the effective rate alone",
         "weight decay does more than raise the effective rate", "decayed", "<=", 1e-9, essential=True),
    Part("under SGD |W|^2 grows by the sum of rate^2 |g|^2", "under SGD |W|^2 does not grow by the steps' squares",
         "growth_SGD", "<=", 1e-3, essential=True),
    Part("under momentum too", "under momentum |W|^2 grows differently, since successive steps point in the same "
    "direction",
         "growth_momentum", "<=", 1e-3),
    Part("under Adam too",
         "under Adam |W|^2 grows differently, since its steps are not at right angles to W",
         "growth_Adam", "<=", 1e-3),
    Part(f"a rate of {HUGE:g} for the hidden weights still trains", f"a rate of {HUGE:g} does not train",
         "huge_bn", ">=", 0.93, essential=True),
    Part("a network without batch norm does not train at that rate", "a network without batch norm trains as well",
         "huge_plain", "<=", 0.2, essential=True),
)  # fmt: skip

CLAIM = Claim(
    name="scale-invariance",
    title="The scale of the weights before batch norm does not matter",
    statement="BN(cW) = BN(W): a layer's output does not depend on the size of the weights before batch norm, so a "
    "large learning rate does not blow them up, and weight decay acts on the effective rate alone.",
    source="Ioffe and Szegedy (2015), section 3.3",
    method="In float64 the gradient is split along and across the weights for eps from 1e-30 to 0.1, the hidden "
    "weights are scaled, a training is repeated with c W at the rate c^2 (c = 0.3), one with weight decay without it "
    f"at a growing rate, and |W|^2 is recorded for {STEPS} steps of three optimizers; then the hidden weights alone "
    f"are trained at a rate of {HUGE:g}.",
    parts=PARTS,
    experiment=experiment,
    draw=draw,
    labels={"all_ten": "accuracy if all parameters, including gamma, beta and the last layer, learn at a rate of 10"},
)
