"""A finding: what is wrong, where, by which numbers, and what cures it."""

from dataclasses import asdict, dataclass
from typing import Any, Literal

Severity = Literal["error", "warning", "note"]
SEVERITIES: tuple[Severity, ...] = ("error", "warning", "note")


@dataclass(frozen=True)
class Finding:
    """One thing that a check found in a network or its training.

    `layer`: its place, such as "1" or "2.0"; "" for the network as a whole. `severity`: "error" where results are wrong
    or lost, "warning" where they suffer, "note" for what is good to know.
    """

    id: str
    severity: Severity
    layer: str
    numbers: dict[str, float]
    says: str
    cure: str

    def to_json(self) -> dict[str, Any]:
        """JSON values, but for numbers that are not finite."""
        return asdict(self)
