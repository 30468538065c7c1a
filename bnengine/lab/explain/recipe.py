"""The recipe: in every step forward with batch norm, gradients of W, beta, gamma, and an update by any method.

It works with gradient descent, momentum, RMSprop and Adam. Whether it is faster depends on the network: much faster
with saturating sigmoids, hardly faster with ReLU on centered inputs.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from ...optim.optimizers import SGD, Adam, Optimizer, RMSprop
from .claim import Claim, Outcome, Part
from .drawing import BLUE, GREEN, legend_below, panels, points_and_mean
from .nets import Norm, Training, accuracy, perceptron
from .setting import Setting

STEPS, EVERY, GOAL = 600, 10, 0.95
FACTORS = tuple(4.0**k for k in range(-3, 4))  # on a method's rate; those that work are counted
RANGED = "SGD", "Adam"
METHODS: dict[str, tuple[Optimizer, float, float]] = {  # with the rates for sigmoid and for ReLU
    "SGD": (SGD(), 0.5, 0.1),
    "momentum": (SGD(momentum=0.9), 0.05, 0.02),
    "RMSprop": (RMSprop(), 0.002, 0.001),
    "Adam": (Adam(), 0.002, 0.001),
}
NETWORKS: dict[Norm, str] = {"none": "plain", "batch": "bn"}


def experiment(setting: Setting, seed: int) -> Outcome:
    """Steps to the goal by each method with and without batch norm; all steps if a training does not reach it."""
    figures = dict[str, float]()
    for method, (_, sigmoid, relu) in METHODS.items():
        for activation, rate in (("sigmoid", sigmoid), ("relu", relu)):
            plain, normalized = (_steps(setting, seed, method, activation, norm, rate) for norm in ("none", "batch"))
            figures |= {f"{activation}_{method}_plain": plain, f"{activation}_{method}_bn": normalized}
            figures[f"{activation}_{method}_ratio"] = plain / normalized
    for method in RANGED:
        for norm, name in NETWORKS.items():
            rates = [METHODS[method][1] * factor for factor in FACTORS]
            work = [_steps(setting, seed, method, "sigmoid", norm, rate) < setting.steps(STEPS) for rate in rates]
            figures[f"range_{method}_{name}"] = float(sum(work))
    figures["slowest"] = max(figures[f"sigmoid_{method}_bn"] for method in METHODS)
    figures["least_ratio"] = min(figures[f"sigmoid_{method}_ratio"] for method in METHODS)
    figures["least_relu"] = min(figures[f"relu_{method}_ratio"] for method in METHODS)
    steps = [[figures[f"{a}_{m}_{n}"] for m in METHODS] for a in ("sigmoid", "relu") for n in ("plain", "bn")]
    return Outcome(figures, {"steps": np.asarray(steps)})


def _steps(setting: Setting, seed: int, method: str, activation: str, norm: Norm, rate: float) -> float:
    """Steps until a share GOAL of the validation rows is correct."""
    draw, widths = setting.centered(seed), (setting.features, 64, 64, 64, setting.classes)
    network = perceptron(widths, norm=norm, activation=activation, backend=setting.backend, seed=seed)
    training = Training(network, METHODS[method][0], draw.x, draw.y, rate=rate, seed=seed)
    for done in training.every(EVERY, setting.steps(STEPS)):
        if done and accuracy(network, draw.x_valid, draw.y_valid) >= GOAL:
            break
    return float(done)


def draw(figure: Any, outcomes: Sequence[Outcome]) -> None:
    """Steps to the goal: a point for each seed, a bar at the mean."""
    steps = np.asarray([outcome.series["steps"] for outcome in outcomes])
    titles = [f"Steps to {GOAL:.0%}, three sigmoid layers", "the same, ReLU"]
    axes = panels(figure, titles)
    for panel, first in zip(axes, (0, 2), strict=True):
        for row, (name, color) in enumerate((("plain", GREEN), ("batch norm", BLUE))):
            for at in range(len(METHODS)):
                values, label = steps[:, first + row, at].tolist(), name if at == 0 else None
                points_and_mean(panel, at + (row - 0.5) * 0.3, values, color, 0.12, label)
        panel.set_xticks(range(len(METHODS)), list(METHODS))
        panel.set_ylim(0, STEPS * 1.05)
    legend_below(figure, axes[0])


PARTS = (
    Part("every method trains three sigmoid layers with batch norm within 300 steps",
         "a method does not train three sigmoid layers with batch norm within 300 steps", "slowest", "<=", 300,
         essential=True),
    Part("with sigmoid each method is at least 1.5 times as fast as without",
         "with sigmoid a method is hardly faster than without", "least_ratio", ">=", 1.5, essential=True),
    Part("with ReLU and centered inputs it is too",
         "with ReLU and centered inputs batch norm is not faster: the networks train well without",
         "least_relu", ">=", 1.5),
)  # fmt: skip

CLAIM = Claim(
    name="recipe",
    title="The recipe works with every method, and is faster",
    statement="For t = 1 ... number of batches: forward on X_t with batch norm in each hidden layer, gradients of W, "
    "beta, gamma, update each by the learning rate; it also works with momentum, RMSprop or Adam, and speeds up "
    "training.",
    source="the summary of the derivation of batch normalization with momentum, RMSprop and Adam",
    method="Networks of three hidden layers of 64 are trained by four methods with and without batch norm, until "
    f"{GOAL:.0%} of the validation rows are correct, for {STEPS} steps at most, on centered inputs.",
    parts=PARTS,
    experiment=experiment,
    draw=draw,
    labels={
        f"{a}_{m}_{n}": f"steps, {a}, {m}, {'without' if n == 'plain' else 'batch norm'}"
        for a in ("sigmoid", "relu") for m in METHODS for n in ("plain", "bn")
    } | {
        f"range_{m}_{n}": f"learning rates of {len(FACTORS)}, each 4 times the last, at which {m} reaches the goal "
        f"with sigmoid, {'without' if n == 'plain' else 'batch norm'}"
        for m in RANGED for n in ("plain", "bn")
    },
)  # fmt: skip
