"""Batch norm needs enough examples: training at several batch sizes, and the gradient at a batch size of two.

Two values per channel normalize to +-sqrt(v/(v + eps)), whatever they are. Their distance is lost, and the gradient of
the weights vanishes with eps.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..._typing import Array
from ...inspect import recalibrate
from ...optim.optimizers import SGD
from .claim import Claim, Outcome, Part
from .drawing import BLUE, GREEN, ORANGE, named_curve, panels
from .nets import Training, accuracy, accuracy_by_batch, look, perceptron
from .setting import Setting

SIZES = (2, 4, 8, 32, 256)
STEPS, RATE = 400, 0.1
SLOW, LONG = 0.025, 1000  # the rate and the steps of the comparison at two


def experiment(setting: Setting, seed: int) -> Outcome:
    """Accuracy with and without batch norm, evaluation compared with training mode, and the gradient at two."""
    figures = dict[str, float]()
    for size in SIZES:
        figures[f"plain_{size}"], _ = _trained(setting, seed, "none", size)
        figures[f"bn_{size}"], figures[f"gap_{size}"] = _trained(setting, seed, "batch", size)
    plain, _ = _trained(setting, seed, "none", 2, SLOW, LONG)
    normalized, _ = _trained(setting, seed, "batch", 2, SLOW, LONG)
    figures["two"] = plain - normalized
    figures["vanishes"] = _size_at_two(setting, seed, 1e-30) / _size_at_two(setting, seed, 1.0)
    series = {name: np.asarray([figures[f"{name}_{size}"] for size in SIZES]) for name in ("plain", "bn", "gap")}
    return Outcome(figures, series)


def _trained(
    setting: Setting, seed: int, norm: Any, size: int, rate: float = RATE, steps: int = STEPS
) -> tuple[float, float]:
    """Validation accuracy with the training statistics, and how far evaluation exceeds training mode there."""
    draw, widths = setting.centered(seed), (setting.features, 64, 64, setting.classes)
    network = perceptron(widths, norm=norm, backend=setting.backend, seed=seed)
    Training(network, SGD(), draw.x, draw.y, rate=rate, batch=size, seed=seed).run(setting.steps(steps))
    if norm == "none":
        return accuracy(network, draw.x_valid, draw.y_valid), 0.0
    recalibrate(network, (draw.x, draw.y))
    gap = accuracy(network, draw.x, draw.y) - accuracy_by_batch(network, draw.x, draw.y, size)
    return accuracy(network, draw.x_valid, draw.y_valid), gap


def _size_at_two(setting: Setting, seed: int, eps: float) -> float:
    """The norm of the first weights' gradient of a batch of two, in float64."""
    draw, widths = setting.centered(seed), (setting.features, 64, setting.classes)
    network = perceptron(widths, eps=eps, dtype="float64", backend=setting.backend, seed=seed)
    gradient: Array = look(network, draw.x[:2], draw.y[:2], training=True)[1]["0.W"]
    return float(np.linalg.norm(gradient))


def draw(figure: Any, outcomes: Sequence[Outcome]) -> None:
    """Accuracy and the gap between the modes by batch size; means over the seeds."""
    mean = {name: np.mean([outcome.series[name] for outcome in outcomes], axis=0) for name in ("plain", "bn", "gap")}
    left, right = panels(figure, [f"Accuracy after {STEPS} steps", "Evaluation above training mode, training rows"])
    named_curve(left, SIZES, mean["plain"], "plain", GREEN)
    named_curve(left, SIZES, mean["bn"], "batch norm", BLUE)
    named_curve(right, SIZES, mean["gap"], "accuracy gained", ORANGE)
    for panel in (left, right):
        panel.set_xscale("log", base=2)
        panel.set_xticks(SIZES, [str(size) for size in SIZES])
        panel.set_xlabel("batch size", fontsize=9)


PARTS = (
    Part("with two examples a network with batch norm is clearly worse than one without",
         "batch norm does no harm even with two examples", "two", ">=", 0.12, essential=True),
    Part("with two the gradient of the weights vanishes with eps", "with two a gradient remains as eps goes to 0",
         "vanishes", "<=", 1e-6, essential=True),
    Part("with four, training mode is far below evaluation", "with four the modes agree", "gap_4", ">=", 0.08,
         essential=True),
    Part("with 32 the modes nearly agree", "even with 32 the modes differ", "gap_32", "<=", 0.04, essential=True),
    Part("with 256 the modes agree", "even with 256 the modes differ", "gap_256", "<=", 0.01, essential=True),
)  # fmt: skip

CLAIM = Claim(
    name="batch-size",
    title="Batch norm needs enough examples",
    statement="Mean and variance of a batch are estimates; with few examples in a batch they are poor ones, and batch "
    "norm suffers.",
    source="the course that goes with the derivation; known since Ioffe (2017), Batch Renormalization",
    method=f"Networks with and without batch norm were trained {STEPS} steps by SGD at {RATE:g} with batches of "
    f"{', '.join(map(str, SIZES))}, then given the exact statistics of the training rows; at two also {LONG} steps at "
    f"{SLOW:g}, and the gradient with eps 1e-30 against eps 1 in float64.",
    parts=PARTS,
    experiment=experiment,
    draw=draw,
    labels={f"bn_{size}": f"accuracy with batch norm, batches of {size}" for size in SIZES}
    | {"plain_2": "accuracy without, batches of 2", "gap_2": "evaluation above training mode at 2"},
)
