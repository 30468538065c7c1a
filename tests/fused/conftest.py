"""The simulated device, for the tests that ask for it."""

from collections.abc import Iterator
from typing import Any

import pytest

from tests.cuda_on_cpu.launch import need_compiler


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The simulated CuPy in CuPy's place."""
    need_compiler()
    from tests.fused import simulated_cupy

    simulated_cupy.installed(monkeypatch)
    yield simulated_cupy
    simulated_cupy.forget()
