"""A short setting of every claim, with figures of each seed far from the thresholds on every array library."""

from typing import NamedTuple

from bnengine.lab.explain import Setting


class Short(NamedTuple):
    """The share of the usual steps, the number of seeds, and the verdict, which may differ from the full one."""

    length: float
    seeds: int
    verdict: str


# Trainings of a few hundred steps agree in four digits on every machine. Effects of rounding do not: the drift of a
# bias by RMSprop and Adam, twice its threshold from half of the steps on, scatters over five seeds by a quarter. Nor do
# batches of two, whose accuracies with and without batch norm differ by 0.5 where 0.12 counts. Nor does the largest
# rate of a plain network in 200 steps: at 20 steps none works, on every library.
SHORT = {
    "bias-cancels": Short(0.5, 3, "holds within limits"),
    "gamma-beta-redundant": Short(0.1, 3, "does not hold"),
    "same-distribution": Short(0.2, 3, "holds within limits"),
    "normalise-only": Short(0.2, 2, "does not hold"),
    "inference-statistics": Short(0.2, 3, "does not hold"),
    "shift": Short(0.2, 3, "does not hold"),
    "scale-invariance": Short(0.2, 3, "holds within limits"),
    "recipe": Short(0.05, 2, "does not hold"),
    "figure-1": Short(0.1, 3, "does not hold"),
    "batch-size": Short(0.1, 3, "holds"),
}


def short(name: str, backend: str) -> Setting:
    """The claim's short setting on a backend."""
    length, seeds, _ = SHORT[name]
    return Setting(backend=backend, length=length, seeds=seeds)
