"""What is wrong with a network's batch normalisation, and how to repair it."""

from .population import population
from .recalibration import recalibrate, restore, statistics_of

__all__ = ["population", "recalibrate", "restore", "statistics_of"]
