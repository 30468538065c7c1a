"""What came out: the figures, and the survivors with their reasons."""

import tomllib
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from .populations import Population
from .runner import Outcome

REASONS = Path(__file__).with_name("reasons.toml")


def explain() -> dict[str, str]:
    """Why mutants may survive, by id: written by hand."""
    entries = tomllib.loads(REASONS.read_text(encoding="utf-8"))
    return {name: " ".join(entry["reason"].split()) for name, entry in entries.items()}


def unexplained(outcomes: list[Outcome], reasons: Mapping[str, str]) -> list[Outcome]:
    """The survivors for which there is no reason."""
    return [o for o in outcomes if o.verdict == "survived" and o.mutant.id not in reasons]


def enough(outcomes: list[Outcome], population: Population, reasons: Mapping[str, str]) -> bool:
    """Whether the share that is required is caught, or survives for a reason."""
    living = sum(outcome.lives for outcome in outcomes)
    return living - len(unexplained(outcomes, reasons)) >= population.share * living


def print_summary(
    outcomes: list[Outcome], population: Population, texts: Mapping[str, str], reasons: Mapping[str, str]
) -> None:
    """Survivors with their diffs, then how many of each verdict."""
    for mutant, verdict, *_ in outcomes:
        if verdict == "survived":
            print(f"survived: {mutant.id}  {mutant.path}:{mutant.line} {mutant.scope}")
            print(*("    " + line for line in mutant.diff(texts[mutant.path])), sep="\n")
            print(
                f"    reason: {reasons.get(mutant.id) or 'NONE: write the missing test, or a reason in reasons.toml'}"
            )
    verdicts = Counter(outcome.verdict for outcome in outcomes)
    living = sum(outcome.lives for outcome in outcomes)
    late = f", {verdicts['timed out']} of them by the clock" if verdicts["timed out"] else ""
    others = f"; {verdicts['stillborn']} more do not compile" if verdicts["stillborn"] else ""
    others += f"; of {verdicts['same']} g++ makes the same code" if verdicts["same"] else ""
    caught = living - verdicts["survived"]
    print(f"{caught} of {living} caught{late}: {caught / max(living, 1):.1%} ({population.share:.0%} required){others}")
