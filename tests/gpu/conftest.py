"""The devices of tests/fused, and how much is asked of each."""

import sys
from collections.abc import Callable
from typing import Any

import pytest

from tests.fused.conftest import device, simulated

__all__ = ["device", "simulated"]


@pytest.fixture
def many(device: Any) -> Callable[[int, int], int]:  # noqa: ARG001 -- it puts CuPy, or what stands in for it, in place
    """many(1000, 8): so many on a GPU, so few on the simulated device."""
    on_gpu = hasattr(sys.modules["cupy"], "ElementwiseKernel")  # which the simulated device has no use for
    return lambda there, here: there if on_gpu else here
