"""What is wrong with a network's batch normalisation, and how to repair it."""

from .population import population

__all__ = ["population"]
