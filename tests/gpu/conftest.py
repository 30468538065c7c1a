"""The devices of tests/fused, and how much is asked of each."""

from tests.fused.conftest import device, many, simulated

__all__ = ["device", "many", "simulated"]
