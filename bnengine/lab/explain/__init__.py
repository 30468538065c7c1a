"""Claims about batch normalisation as experiments on real data, each with a verdict computed from its figures."""

from .claim import Claim, Figure, Judged, Outcome, Part, Verdict, verdict_of
from .run import NAMES, Finding, claim_of, examine, explain
from .setting import Setting
from .story import story

__all__ = [
    "NAMES",
    "Claim",
    "Figure",
    "Finding",
    "Judged",
    "Outcome",
    "Part",
    "Setting",
    "Verdict",
    "claim_of",
    "examine",
    "explain",
    "story",
    "verdict_of",
]
