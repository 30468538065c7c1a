"""Do training statistics work for data that are distributed a little differently?

The experiment compares a plain network, batch norm with its training statistics, and batch norm with those of the
shifted data, on inputs changed in brightness, contrast, noise and in their classes.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ..._typing import Array
from ...arrays.random import Stream
from ...inspect import recalibrate, restore
from ...network.sequential import Sequential
from ...optim.optimizers import SGD
from .claim import Claim, Outcome, Part
from .drawing import BLUE, GREEN, LIGHT, ORANGE, legend_below, panels
from .nets import Training, accuracy, perceptron
from .setting import Setting

WIDTH, STEPS, RATE = 100, 800, 0.1
NEAR = 0.01  # in accuracy: statistics of a few hundred rows change about three of them
PAIR = (3, 8)  # the classes of data with only two; the last two of fewer than nine

# Changes of raw inputs in [0, 1]: (rows, features) and a stream of random numbers.
SHIFTS: dict[str, Callable[[Array, Stream], Array]] = {
    "clean": lambda x, _: x,
    "brighter by 0.25": lambda x, _: x + 0.25,
    "brighter by 0.5": lambda x, _: x + 0.5,
    "a quarter of the contrast": lambda x, _: x * 0.25,
    "noise of 0.4": lambda x, draws: x + 0.4 * draws.normal(x.shape),
    "an offset of each image": lambda x, draws: x + draws.uniform((len(x), 1)) - 0.5,
    "inverted": lambda x, _: 1 - x,
}


def experiment(setting: Setting, seed: int) -> Outcome:
    """Accuracy of three networks on each kind of data."""
    raw = setting.raw(seed)
    plain, normalized = (_trained(setting, seed, norm) for norm in ("none", "batch"))
    accuracies = []
    for name, shift in SHIFTS.items():
        accuracies.append(_three(plain, normalized, shift(raw.x_valid, Stream(seed, "shift", name)), raw.y_valid))
    last = setting.classes - 1
    pair = np.isin(raw.y_valid, PAIR if last >= max(PAIR) else (last - 1, last))
    accuracies.append(_three(plain, normalized, raw.x_valid[pair], raw.y_valid[pair]))
    table = np.asarray(accuracies)
    clean, offset, contrast, noise, two = (table[i] for i in (0, 2, 3, 4, len(SHIFTS)))
    figures = {
        "offset": offset[1], "offset_adapted": clean[1] - offset[2], "contrast_adapted": clean[1] - contrast[2],
        "contrast_harm": contrast[0] - contrast[1], "noise_harm": noise[0] - noise[1], "two_harm": two[1] - two[2],
    }  # fmt: skip
    for i, name in enumerate((*SHIFTS, "two")):
        figures |= {f"{name}, {kind}": table[i, k] for k, kind in enumerate(("plain", "training", "adapted"))}
    return Outcome({name: float(value) for name, value in figures.items()}, {"accuracy": table})


def _trained(setting: Setting, seed: int, norm: Any) -> Sequential:
    draw = setting.raw(seed)
    widths = (setting.features, WIDTH, WIDTH, setting.classes)
    network = perceptron(widths, norm=norm, backend=setting.backend, seed=seed)
    Training(network, SGD(), draw.x, draw.y, rate=RATE, seed=seed).run(setting.steps(STEPS))
    if norm == "batch":
        recalibrate(network, (draw.x, draw.y))
    return network


def _three(plain: Sequential, normalized: Sequential, x: Array, y: Array) -> list[float]:
    """Accuracy of the plain network, of batch norm with its training statistics, and with those of x."""
    accuracies = [accuracy(plain, x, y), accuracy(normalized, x, y)]
    old = recalibrate(normalized, (x, y))
    accuracies.append(accuracy(normalized, x, y))
    restore(normalized, old)
    return accuracies


def draw(figure: Any, outcomes: Sequence[Outcome]) -> None:
    """Accuracy on each kind of data, three bars each; means over the seeds."""
    (panel,) = panels(figure, ["Accuracy on shifted data"])
    mean = np.mean([outcome.series["accuracy"] for outcome in outcomes], axis=0)
    kinds = ("plain", "batch norm, training statistics", "batch norm, statistics of the shifted data")
    for k, (kind, color) in enumerate(zip(kinds, (GREEN, BLUE, ORANGE), strict=True)):
        panel.barh(np.arange(len(mean)) + (k - 1) * 0.26, mean[:, k], 0.24, color=color, label=kind)
    panel.set_yticks(range(len(mean)), [*SHIFTS, "two classes alone"], fontsize=7.5)
    panel.invert_yaxis()
    panel.set_xlim(0, 1)
    panel.grid(visible=False, axis="y")
    panel.grid(axis="x", color=LIGHT, linewidth=0.8)
    legend_below(figure, panel)


PARTS = (
    Part("with its training statistics batch norm keeps its accuracy on brighter images",
         "on brighter images batch norm with its training statistics loses its accuracy", "offset", ">=", 0.8,
         essential=True),
    Part("with a quarter of the contrast it is not worse than a network without",
         "with a quarter of the contrast it does worse than a network without", "contrast_harm", "<=", 0.08,
         essential=True),
    Part("with noise it is not worse than a network without", "with noise it does worse than a network without",
         "noise_harm", "<=", 0.03, essential=True),
    Part("the statistics of the shifted data undo an offset", "the statistics of the shifted data do not undo an "
    "offset",
         "offset_adapted", "<=", NEAR),
    Part("they undo a change of contrast", "the statistics of the shifted data do not undo a change of contrast",
         "contrast_adapted", "<=", NEAR),
    Part("they do no harm if classes are missing",
         "the statistics of the shifted data do harm if classes are missing",
         "two_harm", "<=", 0.2),
)  # fmt: skip

CLAIM = Claim(
    name="shift",
    title="Training statistics carry over to data that differ a little",
    statement="The running statistics and the learned gamma and beta bring dev and test data to the distribution that "
    "the weights expect, even where the data are distributed a little differently.",
    source="the course that goes with the derivation, on why batch norm works at test time",
    method=f"Two networks of two hidden layers of {WIDTH}, with and without batch norm, are trained {STEPS} steps by "
    f"SGD at {RATE:g} on images in [0, 1], then measured on changed validation images, with the exact statistics of "
    "the training rows, and with those of the changed images.",
    parts=PARTS,
    experiment=experiment,
    draw=draw,
    labels={
        f"{name}, {kind}": f"accuracy, {name}, {words}"
        for name in ("clean", "brighter by 0.5", "a quarter of the contrast", "noise of 0.4")
        for kind, words in (
            ("plain", "without"),
            ("training", "training statistics"),
            ("adapted", "statistics of the data"),
        )
    },
)
