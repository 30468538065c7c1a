"""The devices that launchers are tested on: the simulated one everywhere, a GPU where tests marked `gpu` are run."""

import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from bnengine.arrays.backend import get_backend
from bnengine.errors import BackendError
from tests.cuda_on_cpu.launch import need_compiler
from tests.support import missing


@pytest.fixture
def simulated(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The simulated CuPy in CuPy's place."""
    need_compiler()
    from tests.fused import simulated_cupy

    simulated_cupy.installed(monkeypatch)
    yield simulated_cupy
    simulated_cupy.forget()


@pytest.fixture(params=["simulated", pytest.param("gpu", marks=pytest.mark.gpu)])
def device(request: pytest.FixtureRequest) -> Any:
    """The simulated device, and the GPU where tests marked `gpu` run."""
    if request.param == "simulated":
        return request.getfixturevalue("simulated")
    try:
        get_backend("cupy")
    except BackendError as error:
        missing("cupy", str(error))
    from tests.fused import real_cupy

    return real_cupy


@pytest.fixture
def many(device: Any) -> Callable[[int, int], int]:  # noqa: ARG001 -- it puts CuPy, or its simulation, in place
    """many(1000, 8): 1000 on a GPU, 8 on the simulated device."""
    on_gpu = hasattr(sys.modules["cupy"], "ElementwiseKernel")  # which the simulated device has no use for
    return lambda there, here: there if on_gpu else here
