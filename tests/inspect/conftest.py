"""The simulated device, for the tools that look into a network wherever it is."""

from tests.fused.conftest import simulated

__all__ = ["simulated"]
