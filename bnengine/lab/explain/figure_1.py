"""The first figure of the 2015 paper: three layers of 100 sigmoids, batches of 60, plain and with batch norm.

Left: accuracy by step. Right: the 15th, 50th and 85th percentile of the input of a typical unit of the last sigmoid
layer.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..._typing import Array
from ...layers.initializers import Normal
from ...optim.optimizers import SGD
from .claim import Claim, Outcome, Part
from .drawing import BLUE, GREEN, named_curve, panels
from .nets import Norm, Training, accuracy, look, perceptron
from .setting import Setting

WIDTHS, BATCH, STEPS, EVERY = (100, 100, 100), 60, 1500, 25
RATE = 0.5
TUNED = 4.0  # the best of 0.5, 1, 2, 4 and 8 for the network without, and as good as any for the other
NETWORKS: dict[Norm, str] = {"none": "plain", "batch": "bn"}
QUANTILES = (0.15, 0.5, 0.85)
GOALS = {"85": 0.85, "90": 0.9}


def experiment(setting: Setting, seed: int) -> Outcome:
    """Steps to an accuracy, the final accuracy, and the spread and movement of the percentiles."""
    figures, series = dict[str, float](), dict[str, Array]()
    for norm, name in NETWORKS.items():
        curve, percentiles = _followed(setting, seed, norm, RATE)
        series |= {f"{name} accuracy": curve, f"{name} percentiles": percentiles}
        figures |= {f"{name}_{goal}": _steps_to(curve, least) for goal, least in GOALS.items()}
        figures[f"{name}_last"] = float(curve[-1])
        widths = percentiles[:, 2] - percentiles[:, 0]
        figures[f"{name}_widths"] = float(widths.max() / widths.min())
        figures[f"{name}_median"] = float(np.ptp(percentiles[:, 1]) / widths[-1])
        tuned, _ = _followed(setting, seed, norm, TUNED)
        figures |= {f"{name}_tuned": float(tuned[-1]), f"{name}_90_tuned": _steps_to(tuned, 0.9)}
    for goal in GOALS:
        figures[f"ratio_{goal}"] = figures[f"plain_{goal}"] / figures[f"bn_{goal}"]
    figures["ratio_tuned"] = figures["plain_90_tuned"] / figures["bn_90_tuned"]
    figures["medians"] = figures["plain_median"] / figures["bn_median"]
    figures["higher"] = figures["bn_last"] - figures["plain_last"]
    figures["lead_lost"] = figures["higher"] - (figures["bn_tuned"] - figures["plain_tuned"])
    return Outcome(figures, series)


def _followed(setting: Setting, seed: int, norm: Norm, rate: float) -> tuple[Array, Array]:
    """Validation accuracy and the percentiles of the last sigmoids' input (a typical unit), every EVERY steps."""
    draw, widths = setting.raw(seed), (setting.features, *WIDTHS, setting.classes)
    network = perceptron(
        widths, norm=norm, activation="sigmoid", weights=Normal(0.1), backend=setting.backend, seed=seed
    )
    training = Training(network, SGD(), draw.x, draw.y, rate=rate, batch=BATCH, seed=seed)
    curve, spreads = [], []
    for _ in training.every(EVERY, EVERY * setting.steps(STEPS // EVERY)):
        curve.append(accuracy(network, draw.x_valid, draw.y_valid) if training.done else 1 / setting.classes)
        seen = look(network, draw.x_valid, training=True)[0]
        spreads.append(np.quantile(seen[-2].x, QUANTILES, axis=0))
    quantiles = np.asarray(spreads)  # (times, quantiles, units)
    typical = np.argsort(np.ptp(quantiles[:, 1], axis=0))[quantiles.shape[2] // 2]
    return np.asarray(curve), quantiles[:, :, typical]


def _steps_to(curve: Array, least: float) -> float:
    """Steps until the accuracy is reached; all of them if it is not."""
    reached = np.flatnonzero(curve >= least)
    return float(reached[0] * EVERY) if len(reached) else float((len(curve) - 1) * EVERY)


def draw(figure: Any, outcomes: Sequence[Outcome]) -> None:
    """The paper's three panels: accuracy, and the percentiles without and with batch norm, of the first seed."""
    left, middle, right = panels(figure, ["Accuracy", "A last sigmoid's input, plain", "the same, batch norm"])
    steps = EVERY * np.arange(len(outcomes[0].series["bn accuracy"]))
    for name, label, color in (("plain", "plain", GREEN), ("bn", "batch norm", BLUE)):
        curve = np.mean([outcome.series[f"{name} accuracy"] for outcome in outcomes], axis=0)
        named_curve(left, steps, curve, label, color)
    for panel, name, color in ((middle, "plain", GREEN), (right, "bn", BLUE)):
        percentiles = outcomes[0].series[f"{name} percentiles"]
        for k, quantile in enumerate(QUANTILES):
            named_curve(panel, steps, percentiles[:, k], f"{quantile:.0%}", color, alpha=1 if k == 1 else 0.6)
    right.sharey(middle)
    for panel in (left, middle, right):
        panel.set_xlabel("step", fontsize=9)


PARTS = (
    Part("batch norm reaches 85 % in a third of the steps", "batch norm does not reach 85 % in a third of the steps",
         "ratio_85", ">=", 3, essential=True),
    Part("it reaches 90 % in half of them", "it does not reach 90 % in half of the steps", "ratio_90", ">=", 2,
         essential=True),
    Part("without it the width of the distribution changes tenfold", "without it the width hardly changes",
         "plain_widths", ">=", 10, essential=True),
    Part("with it the width changes fourfold at most", "with it the width changes as much", "bn_widths", "<=", 4,
         essential=True),
    Part("its median moves far less, in widths of the distribution", "its median moves as much",
         "medians", ">=", 2.5, essential=True),
    Part("it ends higher than a network without at the same rate", "it does not end higher at the same rate",
         "higher", ">=", 0.005, essential=True),
    Part("it is as far ahead at the best rate of the network without",
         "most of that lead is gone when the other network learns at its best rate", "lead_lost", "<=", 0.01),
)  # fmt: skip

CLAIM = Claim(
    name="figure-1",
    title="Batch norm trains faster, ends higher, and keeps distributions steady",
    statement="With batch norm a network of three layers of 100 sigmoids trains faster and reaches a higher accuracy, "
    "and the distribution of a sigmoid's input is steadier over the training.",
    source="Ioffe and Szegedy (2015), section 4.1 and figure 1",
    method=f"That network is trained {STEPS} steps by SGD at {RATE:g} with batches of {BATCH}, weights drawn with a "
    f"standard deviation of 0.1, inputs in [0, 1]; and again at {TUNED:g}. Percentiles are of the validation rows.",
    parts=PARTS,
    experiment=experiment,
    draw=draw,
    labels={
        "plain_last": f"accuracy after {STEPS} steps, without",
        "bn_last": "the same, batch norm",
        "plain_tuned": f"the same at {TUNED:g}, without",
        "bn_tuned": "the same, batch norm",
        "ratio_tuned": f"steps to 90 % at {TUNED:g}, without over with",
    },
)
