"""A short setting of every claim, in which each seed's figures lie clear of the thresholds on every array library."""

from typing import NamedTuple

from bnengine.lab.explain import Setting


class Short(NamedTuple):
    """The share of the usual steps, how many seeds, and the verdict that these give: another one than in full."""

    length: float
    seeds: int
    verdict: str


# Trainings of a few hundred steps agree in four digits wherever they run. What is made of rounding does not: the drift
# of a bias by RMSprop and Adam, which is twice its threshold from half of the steps on and scatters over five seeds by
# a quarter; and batches of two, whose accuracies with and without batch norm are 0.5 apart, and need be 0.12. Nor does
# the largest rate at which a plain network trains in 200 steps: at 20 steps there is none, on every library.
SHORT = {
    "bias-cancels": Short(0.5, 5, "holds within limits"),
    "gamma-beta-redundant": Short(0.1, 5, "does not hold"),
    "same-distribution": Short(0.2, 3, "holds within limits"),
    "normalise-only": Short(0.2, 2, "does not hold"),
    "inference-statistics": Short(0.2, 3, "does not hold"),
    "shift": Short(0.2, 3, "does not hold"),
    "scale-invariance": Short(0.2, 3, "holds within limits"),
    "recipe": Short(0.3, 2, "undecided"),
    "figure-1": Short(0.2, 3, "does not hold"),
    "batch-size": Short(0.1, 3, "holds"),
}


def short(name: str, backend: str) -> Setting:
    """The claim's short setting on a backend."""
    length, seeds, _ = SHORT[name]
    return Setting(backend=backend, length=length, seeds=seeds)
