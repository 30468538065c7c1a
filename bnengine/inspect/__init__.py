"""Find and repair faults of a network's batch normalization."""

from .adaptation import Adaptation, adapt
from .doctor import doctor
from .findings import Finding
from .folding import Certificate, fold
from .gap import Gap, gap
from .population import population
from .recalibration import recalibrate, restore, statistics_of

__all__ = [
    "Adaptation",
    "Certificate",
    "Finding",
    "Gap",
    "adapt",
    "doctor",
    "fold",
    "gap",
    "population",
    "recalibrate",
    "restore",
    "statistics_of",
]
