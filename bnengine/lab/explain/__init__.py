"""Test claims about batch normalization by experiments on real data, with verdicts computed from their figures."""

from .claim import Claim, Figure, Judged, Outcome, Part, Verdict, verdict_of
from .run import NAMES, ClaimResult, claim_of, examine, explain
from .setting import Setting
from .story import story

__all__ = [
    "NAMES",
    "Claim",
    "ClaimResult",
    "Figure",
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
