"""A student's objection: z_tilde = gamma/sigma z - gamma mu/sigma + beta is again A z + B; could training not learn it?

For one batch it is. But mu and sigma are functions of the weights, so the gradients differ, and the next batch has
other values.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ..._typing import Array
from ...network.sequential import Sequential
from ...optim.optimizers import SGD
from .claim import Claim, Outcome, Part
from .drawing import BLUE, GREEN, ORANGE, named_curve, panels
from .nets import Training, accuracy, logits, look, perceptron
from .setting import Draw, Setting

BATCH, STEPS, LONGER = 64, 200, 300
RATES = tuple(0.05 * 2.0**k for k in range(9))
WORKS = 0.9  # accuracy after STEPS steps
SMALL = 0.01  # a rate at which every network trains


def experiment(setting: Setting, seed: int) -> Outcome:
    """The figures of one seed, with raw inputs unless their names say otherwise."""
    raw, centered = setting.raw(seed), setting.centered(seed)
    figures = _same_function(setting, seed, raw)
    for name, draw in (("raw", raw), ("centred", centered)):  # codespell:ignore centred
        figures[f"cosine_{name}"], figures[f"norms_{name}"] = _gradients(setting, seed, draw)
    makers = {
        "batch norm": lambda: _network(setting, seed, "batch"),
        "affine": lambda: affine(_network(setting, seed, "batch"), raw.x[:BATCH]),
        "plain": lambda: _network(setting, seed, "none"),
    }
    steps, longer = setting.steps(STEPS), setting.steps(LONGER)
    series = {
        name: np.asarray([_trained(make, raw, rate, seed, steps) for rate in RATES]) for name, make in makers.items()
    }
    largest = {name: max([RATES[0], *(r for r, a in zip(RATES, got, strict=True) if a >= WORKS)])
               for name, got in series.items()}  # fmt: skip
    figures |= {f"rate_{name.replace(' ', '_')}": rate for name, rate in largest.items()}
    figures["over_affine"] = largest["batch norm"] / largest["affine"]
    figures["over_plain"] = largest["batch norm"] / largest["plain"]
    for name in ("batch norm", "affine"):
        figures[f"small_{name.replace(' ', '_')}"] = _trained(makers[name], centered, SMALL, seed, longer)
    return Outcome(figures, series)


def _network(setting: Setting, seed: int, norm: Any, dtype: str = "float32") -> Sequential:
    widths = (setting.features, 64, 64, setting.classes)
    return perceptron(widths, norm=norm, dtype=dtype, backend=setting.backend, seed=seed)


def affine(network: Sequential, x: Array) -> Sequential:
    """The network with its normalization fixed at this batch's statistics: A z + B, with trained gamma and beta."""
    seen = network.forward(np.asarray(x, network.dtype), training=True)
    network.statistics.array[...] = seen.pending.array
    network.freeze("statistics")
    network.freeze("normalization")
    return network


def _same_function(setting: Setting, seed: int, draw: Draw) -> dict[str, float]:
    """The difference of both networks' logits in float64 over the largest, on the batch of A and B and on the next."""
    network = _network(setting, seed, "batch", "float64")
    fixed = affine(_network(setting, seed, "batch", "float64"), draw.x[:BATCH])
    differences = {}
    for name, rows in (("same_batch", slice(0, BATCH)), ("next_batch", slice(BATCH, 2 * BATCH))):
        normalized = look(network, draw.x[rows], training=True)[0][-1].y
        differences[name] = float(np.abs(logits(fixed, draw.x[rows]) - normalized).max() / np.abs(normalized).max())
    return differences


def _gradients(setting: Setting, seed: int, draw: Draw) -> tuple[float, float]:
    """Cosine of the two networks' gradients of the first weights on the first batch, and the ratio of their norms."""
    x, y = draw.x[:BATCH], draw.y[:BATCH]
    a = look(_network(setting, seed, "batch"), x, y, training=True)[1]["0.W"].ravel()
    b = look(affine(_network(setting, seed, "batch"), x), x, y, training=True)[1]["0.W"].ravel()
    norms = np.linalg.norm(a), np.linalg.norm(b)
    return float(a @ b / (norms[0] * norms[1])), float(norms[1] / norms[0])


def _trained(make: Callable[[], Sequential], draw: Draw, rate: float, seed: int, steps: int) -> float:
    network = make()
    Training(network, SGD(), draw.x, draw.y, rate=rate, batch=BATCH, seed=seed).run(steps)
    return accuracy(network, draw.x_valid, draw.y_valid)


def draw(figure: Any, outcomes: Sequence[Outcome]) -> None:
    """Accuracy by learning rate; the mean over the seeds."""
    (panel,) = panels(figure, [f"Accuracy after {STEPS} steps, inputs not centered"])
    for name, color in (("plain", GREEN), ("affine", ORANGE), ("batch norm", BLUE)):
        named_curve(panel, RATES, np.mean([outcome.series[name] for outcome in outcomes], axis=0), name, color)
    panel.set_xscale("log")
    panel.set_xlabel("learning rate of SGD", fontsize=9)


PARTS = (
    Part("on the batch that fixes A and B both networks are one function", "the two differ even on one batch",
         "same_batch", "<=", 1e-12),
    Part("the gradients of the weights point the same way",
         "the gradients of the weights point in other directions, since mu and sigma depend on the weights",
         "cosine_raw", ">=", 0.75, essential=True),
    Part("the gradients have the same size", "without the gradient through mu and sigma the gradients are larger",
         "norms_raw", "<=", 1.3, essential=True),
    Part("the affine network trains at the same learning rates",
         "batch norm trains at learning rates many times those of the affine network", "over_affine", "<=", 4,
         essential=True),
    Part("a network without batch norm trains at the same learning rates",
         "batch norm trains at larger learning rates than the network without", "over_plain", "<=", 2),
)  # fmt: skip

CLAIM = Claim(
    name="gamma-beta-redundant",
    title="gamma and beta only undo the normalization",
    statement="gamma (z - mu)/sigma + beta = (gamma/sigma) z - gamma mu/sigma + beta is again A z + B, a linear "
    "function that training could learn without batch norm.",
    source="a student's objection to the derivation",
    method="The normalization of a network of two hidden layers is fixed at the first batch's mean and variance, which "
    "makes it A z + B. Both are compared on that batch and the next, by their gradients, and trained "
    f"{STEPS} steps by SGD at {len(RATES)} learning rates, inputs not centered; a rate works if the accuracy reaches "
    f"{WORKS:g}.",
    parts=PARTS,
    experiment=experiment,
    draw=draw,
    labels={
        "next_batch": "difference of the two on the next batch, over the largest output",
        "cosine_centred": "cosine of the gradients with centered inputs",
        "norms_centred": "ratio of their norms with centered inputs",
        "rate_batch_norm": "largest learning rate that works: batch norm",
        "rate_affine": "the same: affine",
        "rate_plain": "the same: without",
        "small_batch_norm": f"accuracy at the small rate {SMALL:g} after {LONGER} steps, centered: batch norm",
        "small_affine": "the same: affine, the faster one there",
    },
)
