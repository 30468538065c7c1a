"""Ops are tested by their references here; native kernels are held to the same contracts in tests/cpu."""

from collections.abc import Iterator

import pytest

from bnengine.ops import using


@pytest.fixture(autouse=True)
def references() -> Iterator[None]:
    """Inside a test, an op is its reference."""
    with using("reference"):
        yield
