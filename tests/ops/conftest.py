"""Ops are tested by their references here; tests/contracts walks over all libraries."""

from collections.abc import Iterator

import pytest

from bnengine.ops import using


@pytest.fixture(autouse=True)
def references() -> Iterator[None]:
    """Inside a test, an op is its reference."""
    with using("reference"):
        yield
