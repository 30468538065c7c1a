"""PyTorch for the tests that compare with it: skipped with a printed reason, or failed in CI, where it is missing."""

from collections.abc import Iterator
from typing import Any

import pytest

from tests.support import require


@pytest.fixture(scope="session")
def torch() -> Iterator[Any]:
    """PyTorch on one thread: its pool and the BLAS's would only wait for one another."""
    module = require("torch")
    threads = module.get_num_threads()
    module.set_num_threads(1)
    yield module
    module.set_num_threads(threads)
