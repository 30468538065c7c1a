"""A finding: a fault, its place, its numbers and its cure."""

from dataclasses import asdict, dataclass
from typing import Any, Literal

Severity = Literal["error", "warning", "note"]
SEVERITIES: tuple[Severity, ...] = ("error", "warning", "note")


@dataclass(frozen=True)
class Finding:
    """A fault that a check found in a network or its training.

    severity: "error" if results are wrong or lost, "warning" if they suffer, "note" for information. layer: the place,
    such as "1" or "2.0"; "" for the network as a whole.
    """

    id: str
    severity: Severity
    layer: str
    numbers: dict[str, float]
    says: str
    cure: str

    def to_json(self) -> dict[str, Any]:
        """The finding as JSON values; numbers may be infinite or NaN."""
        return asdict(self)
