"""Experiments from a name to a finding: the seeds one after the other, the figures of all, the verdict."""

import importlib
from collections.abc import Callable, Sequence
from time import perf_counter
from typing import Any, NamedTuple

from ...errors import InputError
from .claim import Claim, Figure, Judged, Outcome, Verdict, summarised, verdict_of
from .setting import Setting

# In the order in which a reader may want them; each is a module of this folder with a CLAIM.
NAMES = (
    "bias-cancels", "gamma-beta-redundant", "same-distribution", "normalise-only", "inference-statistics", "shift",
    "scale-invariance", "recipe", "figure-1", "batch-size",
)  # fmt: skip


class Finding(NamedTuple):
    """A claim, what the seeds gave, and the verdict."""

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
        return {name: summarised([outcome.figures[name] for outcome in self.outcomes]) for name in names}

    @property
    def done(self) -> str:
        """What was done, in words; where trainings were shortened, that too."""
        if self.length == 1:
            return self.claim.done
        share = f"Every training took {self.length:.0%} of these steps, for which the thresholds are not made."
        return f"{self.claim.done} {share}"

    def to_json(self) -> dict[str, Any]:
        """The finding as JSON values; what is not finite is null."""
        parts = {each.part.figure: each for each in self.judged}
        figures = {}
        for name, figure in self.figures.items():
            told: dict[str, Any] = {key: _finite(value) for key, value in figure._asdict().items()}
            if name in parts:
                part, _, state = parts[name]
                told |= {"needed": f"{part.relation} {part.threshold:g}", "says": part.says, "state": state}
            figures[name] = told
        own = {"name": self.claim.name, "claim": self.claim.told, "verdict": self.verdict, "figures": figures}
        return own | {"seeds": list(self.seeds), "seconds": round(self.seconds, 2)}


def claim_of(name: str) -> Claim:
    """The claim of that name; InputError for one that there is not."""
    if name not in NAMES:
        raise InputError(f"explain: no claim {name!r}; there are {', '.join(NAMES)}, and all")
    claim: Claim = importlib.import_module(f".{name.replace('-', '_')}", __package__).CLAIM
    return claim


def examine(claim: Claim, setting: Setting, say: Callable[[int], None] | None = None) -> Finding:
    """Run a claim's experiment with every seed, and judge; `say` is told each seed before it runs."""
    started, outcomes = perf_counter(), list[Outcome]()
    for seed in setting.seeds:
        if say is not None:
            say(seed)
        outcomes.append(claim.experiment(setting, seed))
    judged = claim.judge({name: [o.figures[name] for o in outcomes] for name in outcomes[0].figures})
    seconds = perf_counter() - started
    verdict = verdict_of(judged)
    return Finding(claim, tuple(outcomes), tuple(judged), verdict, setting.seeds, seconds, setting.length)


def explain(names: str | Sequence[str] = "all", setting: Setting | None = None) -> list[Finding]:
    """Examine claims about batch norm by experiments: "all", a name or several; on the digits if no setting is given.

    Raises InputError for a name that there is not.
    """
    wanted = NAMES if names == "all" else (names,) if isinstance(names, str) else tuple(names)
    setting = setting or Setting()
    return [examine(claim_of(name), setting) for name in wanted]


def _finite(value: Any) -> Any:
    if isinstance(value, tuple):
        return [_finite(each) for each in value]
    return value if abs(value) < float("inf") else None
