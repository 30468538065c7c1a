"""A claim about batch norm, the parts it needs, and the verdict from the figures of several seeds."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import inf, isfinite, sqrt
from typing import Any, Literal, NamedTuple

from ..._typing import Array
from ...errors import InputError
from .setting import Setting

Relation = Literal["<=", ">="]
State = Literal["holds", "fails", "undecided"]
Verdict = Literal["holds", "holds within limits", "does not hold", "undecided"]

# Student's t, two-sided 95 %, for 1 to 30 degrees of freedom (Fisher and Yates 1963, table III); beyond, the last one.
_T = (
    12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131,
    2.120, 2.110, 2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042,
)  # fmt: skip


class Part(NamedTuple):
    """A part of a claim: a figure on one side of a threshold.

    `says` and `otherwise` are sentences for the reader, for a part that holds and one that fails. If an `essential`
    part fails the claim does not hold; if another fails it holds within limits.
    """

    says: str
    otherwise: str
    figure: str
    relation: Relation
    threshold: float
    essential: bool = False


class Outcome(NamedTuple):
    """The result of an experiment with one seed: `figures` for parts and labels, `series` for the picture."""

    figures: dict[str, float]
    series: dict[str, Array]


class Figure(NamedTuple):
    """A figure over the seeds: mean, standard deviation, and the 95 % confidence interval of the mean."""

    values: tuple[float, ...]
    mean: float
    sd: float
    low: float
    high: float


class Judged(NamedTuple):
    """A part, its figure, and whether it holds."""

    part: Part
    figure: Figure
    state: State


@dataclass(frozen=True)
class Claim:
    """A claim as its source states it, and its experiment.

    name: on the command line. statement: the claim in the words of its source. method: the experiment in words.
    experiment: `experiment(setting, seed)` returns the figures of one seed. parts: judge the figures. draw:
    `draw(figure, outcomes)` fills a matplotlib figure. labels: descriptions of figures that no part judges.
    """

    name: str
    title: str
    statement: str
    source: str
    method: str
    parts: tuple[Part, ...]
    experiment: Callable[[Setting, int], Outcome]
    draw: Callable[[Any, Sequence[Outcome]], None]
    labels: Mapping[str, str]

    def judge(self, figures: Mapping[str, Sequence[float]]) -> list[Judged]:
        """Judge each part by the values of its figure, one a seed; InputError for a missing figure."""
        judged = []
        for part in self.parts:
            if part.figure not in figures:
                raise InputError(
                    f"explain {self.name}: the experiment returned no figure {part.figure!r}. Add it, or drop the part."
                )
            figure = summarized(figures[part.figure])
            judged.append(Judged(part, figure, state_of(figure, part.relation, part.threshold)))
        return judged


def summarized(values: Sequence[float]) -> Figure:
    """Mean, standard deviation (n - 1) and 95 % confidence interval by Student's t; without bounds for one value."""
    n = len(values)
    if n == 0:
        raise InputError("explain: there are no seeds. Give at least two.")
    mean = sum(values) / n
    if n == 1 or not isfinite(mean):
        return Figure(tuple(values), mean, 0.0 if n == 1 else inf, -inf, inf)
    sd = sqrt(sum((value - mean) ** 2 for value in values) / (n - 1))
    half = _T[min(n - 1, len(_T)) - 1] * sd / sqrt(n)
    return Figure(tuple(values), mean, sd, mean - half, mean + half)


def state_of(figure: Figure, relation: Relation, threshold: float) -> State:
    """Whether the interval is on the part's side of the threshold, on the other, or across it.

    A mean that is not finite decides nothing, unless all values are on one side, as of trainings that never reach a
    goal.
    """
    low, high = figure.low, figure.high
    if not isfinite(figure.mean) and not any(value != value for value in figure.values):
        low, high = min(figure.values), max(figure.values)
    if relation == ">=":
        low, high, threshold = -high, -low, -threshold
    return "holds" if high <= threshold else "fails" if low > threshold else "undecided"


def verdict_of(judged: Sequence[Judged]) -> Verdict:
    """The verdict from the parts: essential parts decide first, then the others limit it."""
    essential = {each.state for each in judged if each.part.essential}
    others = {each.state for each in judged if not each.part.essential}
    if "fails" in essential:
        return "does not hold"
    if "undecided" in essential:
        return "undecided"
    if "fails" in others:
        return "holds within limits"
    return "undecided" if "undecided" in others else "holds"
