"""Normalizing without gamma and beta: networks without, with normalization alone, and with batch norm."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from ...layers import BatchNorm, Dense
from ...network.sequential import Sequential
from ...optim.optimizers import SGD
from .claim import Claim, Outcome, Part
from .drawing import BLUE, GREEN, ORANGE, legend_below, panels, points_and_mean
from .nets import Norm, Training, accuracy, loss, perceptron
from .setting import Setting

WIDTH, STEPS, RATE, GENTLE = 64, 600, 0.5, 0.1
NORMS: dict[Norm, tuple[str, str]] = {  # the end of a figure's name, and a label
    "none": ("none", "plain"),
    "normalize-only": ("normalise", "normalized only"),  # codespell:ignore normalise
    "batch": ("batch", "batch norm"),
}
DEPTHS = (1, 2, 5)


def experiment(setting: Setting, seed: int) -> Outcome:
    """Accuracy and loss of each network after training, and of two with a normalized output."""
    figures, series = dict[str, float](), {}
    for activation in ("relu", "sigmoid"):
        for depth in DEPTHS:
            rate = GENTLE if (activation, depth) == ("sigmoid", 5) else RATE
            results = [_trained(setting, seed, activation, depth, norm, rate) for norm in NORMS]
            series[f"{activation} {depth}"] = np.asarray([accuracy for accuracy, _ in results])
            for (right, value), (name, _) in zip(results, NORMS.values(), strict=True):
                figures[f"{activation}_{depth}_{name}"] = right
                figures[f"{activation}_{depth}_{name}_loss"] = value
    figures["relu_gain"] = figures["relu_2_batch"] - figures["relu_2_normalise"]
    figures["sigmoid_loss"] = figures["sigmoid_2_batch_loss"] - figures["sigmoid_2_normalise_loss"]
    figures["output_normalise"], figures["output_batch"] = (_output(setting, seed, affine) for affine in (False, True))
    figures["output_gain"] = figures["output_normalise"] - figures["output_batch"]
    return Outcome(figures, series)


def _trained(
    setting: Setting, seed: int, activation: str, depth: int, norm: Norm, rate: float
) -> tuple[float, float]:  # fmt: skip
    draw = setting.centered(seed)
    widths = (setting.features, *[WIDTH] * depth, setting.classes)
    network = perceptron(widths, norm=norm, activation=activation, backend=setting.backend, seed=seed)
    Training(network, SGD(), draw.x, draw.y, rate=rate, seed=seed).run(setting.steps(STEPS))
    return accuracy(network, draw.x_valid, draw.y_valid), loss(network, draw.x_valid, draw.y_valid)


def _output(setting: Setting, seed: int, affine: bool) -> float:
    """Validation loss of separating the first class from the others with a normalized output."""
    draw = setting.centered(seed)
    layers = Dense(setting.features, 2), BatchNorm(2, gamma=affine, beta=affine)
    network, targets = Sequential(*layers, backend=setting.backend, seed=seed), (draw.y == 0).astype(np.int64)
    Training(network, SGD(), draw.x, targets, rate=RATE, seed=seed).run(setting.steps(STEPS))
    return loss(network, draw.x_valid, (draw.y_valid == 0).astype(np.int64))


def draw(figure: Any, outcomes: Sequence[Outcome]) -> None:
    """The accuracy of each network by depth: a point for each seed, a bar at the mean."""
    axes = panels(figure, ["Accuracy, ReLU", "Accuracy, sigmoid"])
    for panel, activation in zip(axes, ("relu", "sigmoid"), strict=True):
        for i, ((_, label), color) in enumerate(zip(NORMS.values(), (GREEN, ORANGE, BLUE), strict=True)):
            for at, depth in enumerate(DEPTHS):
                values = [outcome.series[f"{activation} {depth}"][i] for outcome in outcomes]
                points_and_mean(panel, at + (i - 1) * 0.22, values, color, 0.09, label if at == 0 else None)
        panel.set_xticks(range(len(DEPTHS)), [f"{depth} hidden" for depth in DEPTHS])
    legend_below(figure, axes[0])


PARTS = (
    Part("with ReLU gamma and beta raise the accuracy (two hidden layers)",
         "with ReLU the accuracy is the same without gamma and beta: the next layer's weights and bias replace them",
         "relu_gain", ">=", 0.015, essential=True),
    Part("with sigmoid gamma and beta lower the loss (two hidden layers)", "with sigmoid they do not lower the loss",
         "sigmoid_loss", "<=", -0.02),
    Part("five sigmoid layers do not train with normalization alone",
         "five sigmoid layers train with normalization alone, and not without it",
         "sigmoid_5_normalise", "<=", 0.9, essential=True),
    Part("five plain sigmoid layers do not train at all", "five plain sigmoid layers train",
         "sigmoid_5_none", "<=", 0.3),
    Part("a normalized output needs gamma and beta", "even a normalized output does not need gamma and beta",
         "output_gain", ">=", 0.1),
)  # fmt: skip

CLAIM = Claim(
    name="normalise-only",
    title="Normalizing alone is not enough",
    statement="Normalizing a layer's values without gamma and beta is not enough: train two networks, one with each, "
    "and compare.",
    source="the course that goes with the derivation, as an exercise",
    method=f"Networks of 1, 2 and 5 hidden layers of {WIDTH}, plain, normalized only and with batch norm, are trained "
    f"{STEPS} steps by SGD at {RATE:g} (five sigmoids at {GENTLE:g}), and a single layer with a normalized output "
    "learns to separate the first class from the others.",
    parts=PARTS,
    experiment=experiment,
    draw=draw,
    labels={
        "relu_2_none": "accuracy, two hidden layers, ReLU: plain",
        "relu_2_normalise": "the same: normalized only",
        "relu_2_batch": "the same: batch norm",
        "relu_5_normalise": "accuracy, five hidden layers, ReLU: normalized only",
        "relu_5_batch": "the same: batch norm",
        "output_normalise": "loss where the output is normalized only",
        "output_batch": "the same with gamma and beta",
    },
)
