"""Fixtures for every test: random numbers, the array libraries, and what happens where something is not installed."""

from typing import Any

import numpy as np
import pytest

from bnengine.arrays.backend import Backend, get_backend
from bnengine.errors import BackendError
from tests.support import missing
from tests.support import require as _require


@pytest.fixture
def rng() -> np.random.Generator:
    """Random numbers for a test's inputs, the same in every run."""
    return np.random.default_rng(0)


@pytest.fixture
def require() -> Any:
    """`require("torch")` gives the module, or skips the test with a printed reason, or fails it in CI."""
    return _require


@pytest.fixture(params=["numpy", "array_api_strict", "torch", pytest.param("cupy", marks=pytest.mark.gpu)])
def backend(request: pytest.FixtureRequest) -> Backend:
    """Each array library that can be used here; CuPy only if the tests marked `gpu` run."""
    if request.param != "numpy":
        _require(request.param)
    try:
        return get_backend(request.param)
    except BackendError as error:
        missing(request.param, str(error))


@pytest.fixture
def xp(backend: Backend) -> Any:
    """The namespace of each array library that can be used here."""
    return backend.xp
