"""Run experiments: a claim by name, the seeds one after the other, the figures of all, the verdict."""

from collections.abc import Callable, Sequence
from time import perf_counter
from typing import Any, NamedTuple

from ...errors import InputError
from . import (
    batch_size,
    bias_cancels,
    figure_1,
    gamma_beta_redundant,
    inference_statistics,
    normalize_only,
    recipe,
    same_distribution,
    scale_invariance,
    shift,
)
from .claim import Claim, Figure, Judged, Outcome, Verdict, summarized, verdict_of
from .setting import Setting

# In the order for a reader.
CLAIMS: dict[str, Claim] = {
    module.CLAIM.name: module.CLAIM
    for module in (
        bias_cancels, gamma_beta_redundant, same_distribution, normalize_only, inference_statistics, shift,
        scale_invariance, recipe, figure_1, batch_size,
    )
}  # fmt: skip
NAMES = tuple(CLAIMS)


class ClaimResult(NamedTuple):
    """A claim, the outcomes of the seeds, and the verdict."""

    claim: Claim
    outcomes: tuple[Outcome, ...]
    judged: tuple[Judged, ...]
    verdict: Verdict
    seeds: tuple[int, ...]
    seconds: float
    length: float = 1.0  # of the trainings, as a share of the usual steps

    @property
    def figures(self) -> dict[str, Figure]:
        """Every figure over the seeds, by name."""
        names = self.outcomes[0].figures
        return {name: summarized([outcome.figures[name] for outcome in self.outcomes]) for name in names}

    @property
    def method(self) -> str:
        """The method in words, and whether trainings were shortened."""
        if self.length == 1:
            return self.claim.method
        share = f"Every training took {self.length:.0%} of these steps, and the thresholds do not apply."
        return f"{self.claim.method} {share}"

    def to_json(self) -> dict[str, Any]:
        """The result as JSON values; null for numbers that are not finite."""
        parts = {each.part.figure: each for each in self.judged}
        figures = {}
        for name, figure in self.figures.items():
            entry: dict[str, Any] = {key: _finite(value) for key, value in figure._asdict().items()}
            if name in parts:
                part, _, state = parts[name]
                entry |= {"needed": f"{part.relation} {part.threshold:g}", "says": part.says, "state": state}
            figures[name] = entry
        head = {"name": self.claim.name, "claim": self.claim.statement, "verdict": self.verdict, "figures": figures}
        return head | {"seeds": list(self.seeds), "seconds": round(self.seconds, 2)}


def claim_of(name: str) -> Claim:
    """The claim of a name; InputError for an unknown one."""
    if name not in CLAIMS:
        raise InputError(f"explain: no claim {name!r}. Choose one of {', '.join(NAMES)}, or all.")
    return CLAIMS[name]


def examine(claim: Claim, setting: Setting, say: Callable[[int], None] | None = None) -> ClaimResult:
    """Run the experiment of a claim with every seed, and judge; `say` is called with each seed before it runs."""
    started, outcomes = perf_counter(), list[Outcome]()
    for seed in setting.seeds:
        if say is not None:
            say(seed)
        outcomes.append(claim.experiment(setting, seed))
    judged = claim.judge({name: [o.figures[name] for o in outcomes] for name in outcomes[0].figures})
    seconds = perf_counter() - started
    verdict = verdict_of(judged)
    return ClaimResult(claim, tuple(outcomes), tuple(judged), verdict, setting.seeds, seconds, setting.length)


def explain(names: str | Sequence[str] = "all", setting: Setting | None = None) -> list[ClaimResult]:
    """Test claims about batch norm by experiments.

    Args:
        names: "all", a name or several.
        setting: the data and the seeds; None for the digits.

    Raises:
        InputError: an unknown name.
    """
    wanted = NAMES if names == "all" else (names,) if isinstance(names, str) else tuple(names)
    setting = setting or Setting()
    return [examine(claim_of(name), setting) for name in wanted]


def _finite(value: Any) -> Any:
    if isinstance(value, tuple):
        return [_finite(each) for each in value]
    return value if abs(value) < float("inf") else None
