"""At inference running mean and variance replace those of the batch: how good are they, and what causes their error?

running <- decay running + (1 - decay) batch, from mean 0: after t steps the start has a weight of decay^t, which for
inputs with a mean is an error of decay^t |mu| / sigma.
"""

from collections.abc import Sequence
from math import log
from typing import Any, NamedTuple

import numpy as np

from ...inspect import recalibrate, statistics_of
from ...optim.optimizers import SGD
from .claim import Claim, Outcome, Part
from .drawing import BLUE, GREEN, ORANGE, SKY, legend_below, panels
from .nets import Training, accuracy, perceptron
from .setting import Setting

RATE = 0.1
DECAYS: dict[str, float | None] = {"0.9": 0.9, "0.99": 0.99, "cumulative": None}


class Condition(NamedTuple):
    """The length of a training, and a constant added to its centered inputs."""

    name: str
    steps: int
    shift: float


CONDITIONS = (
    Condition("10 steps", 10, 0), Condition("100 steps", 100, 0), Condition("1,000 steps", 1000, 0),
    Condition("inputs + 10", 100, 10), Condition("inputs + 100", 1000, 100),
)  # fmt: skip


class Comparison(NamedTuple):
    """Of one training: accuracy with running and with exact statistics, error of the means, and its prediction."""

    running: float
    exact: float
    error: float
    predicted: float


def experiment(setting: Setting, seed: int) -> Outcome:
    """Accuracy with running statistics of three kinds and with exact ones, under five conditions."""
    figures, accuracies = dict[str, float](), []
    for case in CONDITIONS:
        results = {name: measured(setting, seed, case, decay) for name, decay in DECAYS.items()}
        key = case.name.replace(" ", "_").replace(",", "").replace("+_", "")
        for name, each in results.items():
            figures |= {f"{key}_{name}": each.running, f"{key}_{name}_error": each.error}
        figures[f"{key}_exact"] = exact = results["0.9"].exact
        figures[f"{key}_lost"] = exact - max(each.running for each in results.values())
        figures[f"{key}_slow"] = exact - results["0.99"].running
        accuracies.append([*(each.running for each in results.values()), exact])
        if case.name == "inputs + 10":
            figures["prediction"] = abs(log(results["0.99"].error / results["0.99"].predicted))
    return Outcome(figures, {"accuracy": np.asarray(accuracies)})


def measured(setting: Setting, seed: int, case: Condition, decay: float | None) -> Comparison:
    """Train, and compare the running statistics of the first BatchNorm with the exact ones, in units of sigma."""
    draw, widths = setting.centered(seed), (setting.features, 64, 64, setting.classes)
    x, x_valid = draw.x + case.shift, draw.x_valid + case.shift
    network = perceptron(widths, decay=decay, backend=setting.backend, seed=seed)
    steps = setting.steps(case.steps)
    Training(network, SGD(), x, draw.y, rate=RATE, seed=seed).run(steps)
    running = accuracy(network, x_valid, draw.y_valid)
    old = recalibrate(network, (x, draw.y))["1.statistics"]
    mean, std = statistics_of(network)["1.statistics"][1], np.sqrt(statistics_of(network)["1.statistics"][2])
    left = 0.0 if decay is None else decay**steps
    return Comparison(
        running,
        accuracy(network, x_valid, draw.y_valid),
        float(np.mean(np.abs(old[1] - mean) / std)),
        float(np.mean(left * np.abs(mean) / std)),
    )


def draw(figure: Any, outcomes: Sequence[Outcome]) -> None:
    """Accuracy with each kind of statistics: a bar for each condition and kind, the mean over the seeds."""
    (panel,) = panels(figure, ["Accuracy by running and by exact statistics"])
    mean = np.mean([outcome.series["accuracy"] for outcome in outcomes], axis=0)
    for at, (name, color) in enumerate(zip((*DECAYS, "exact"), (BLUE, SKY, ORANGE, GREEN), strict=True)):
        label = f"decay {name}" if name[0] == "0" else name
        panel.bar(np.arange(len(CONDITIONS)) + (at - 1.5) * 0.2, mean[:, at], 0.18, color=color, label=label)
    steps = [f"\n{case.steps:,} steps" if case.shift else "" for case in CONDITIONS]
    panel.set_xticks(
        range(len(CONDITIONS)), [case.name + more for case, more in zip(CONDITIONS, steps, strict=True)], fontsize=7.5
    )
    panel.set_ylim(0, 1)
    legend_below(figure, panel)


PARTS = (
    Part("after 1,000 steps on centered inputs the best running statistics do as well as exact ones",
         "even after 1,000 steps on centered inputs running statistics cost accuracy", "1000_steps_lost", "<=", 0.01,
         essential=True),
    Part("exact statistics suffice after 100 steps on inputs that are not centered",
         "not even exact statistics suffice", "inputs_10_exact", ">=", 0.9, essential=True),
    Part("a decay of 0.99 does as well after 10 steps", "a decay of 0.99 still contains its start after 10 steps",
         "10_steps_slow", "<=", 0.01),
    Part("running statistics of decay 0.99 suffice on inputs that are not centered, after 100 steps",
         "on inputs that are not centered running statistics of decay 0.99 are wrong after 100 steps",
         "inputs_10_0.99", ">=", 0.75),
    Part("the error is the remainder of the start, decay^t |mu|/sigma, within a quarter",
         "the error is not the remainder of the start", "prediction", "<=", log(1.25)),
)  # fmt: skip

CLAIM = Claim(
    name="inference-statistics",
    title="At inference running statistics replace the batch's",
    statement="For a single example there is no batch, so exponentially weighted averages of mean and variance over "
    "the training batches take their place at inference.",
    source="Ioffe and Szegedy (2015), algorithm 2; the summary of the derivation",
    method=f"A network is trained by SGD at {RATE:g} for 10, 100 and 1,000 steps, also with 10 and 100 added to its "
    "inputs. Its accuracy is compared with running averages of decay 0.9 and 0.99, the mean of all batches, and the "
    "exact statistics of the training rows at the final weights.",
    parts=PARTS,
    experiment=experiment,
    draw=draw,
    labels={
        "100_steps_0.9": "accuracy, 100 steps, decay 0.9",
        "100_steps_0.99": "the same, decay 0.99",
        "100_steps_exact": "the same, exact",
        "inputs_100_0.9": "accuracy, inputs + 100, 1,000 steps, decay 0.9",
        "inputs_100_cumulative": "the same, mean of all batches",
        "inputs_100_exact": "the same, exact",
        "inputs_10_0.99_error": "error of the running mean in sigma, inputs + 10, decay 0.99",
    },
)
