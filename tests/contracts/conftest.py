"""The libraries that the walk over contracts takes."""

from collections.abc import Iterator
from typing import Any

import pytest

from bnengine import threads
from bnengine.arrays.backend import get_backend
from bnengine.errors import BackendError
from bnengine.fused.cpu import _load
from tests.contracts.libraries import Kernels, Library, Native, Simulated
from tests.cuda_on_cpu.launch import need_compiler
from tests.support import missing, require


@pytest.fixture(autouse=True)
def bfloat16(request: pytest.FixtureRequest) -> None:
    """NumPy knows the name bfloat16 once ml_dtypes is imported."""
    if "bfloat16" in getattr(request.node, "callspec", request.node).__dict__.get("params", {}).values():
        require("ml_dtypes")


@pytest.fixture
def library(request: pytest.FixtureRequest) -> Iterator[Library]:
    """The library of this name, where it can be used."""
    yield from _opened(request.param)


def _opened(name: str) -> Iterator[Library]:
    if name == "simulated":
        yield from _simulated()
    elif name == "native":
        yield from _native()
    else:
        if name not in ("numpy", "gpu"):
            require(name)
        try:
            backend = get_backend("cupy" if name == "gpu" else name)
        except BackendError as error:
            missing(name, str(error))
        yield Library(backend) if name != "gpu" else Kernels(_module("real_cupy"), "cupy")


def _simulated() -> Iterator[Library]:
    need_compiler()
    device = _module("simulated_cupy")
    with pytest.MonkeyPatch.context() as patched:
        device.installed(patched)
        yield Simulated(device, "cupy")
    device.forget()


def _native() -> Iterator[Library]:
    if reason := _load.available():
        missing("kernels", reason)
    before = threads.get()
    threads.set(1)
    yield Native(_module("native"), "numpy")
    threads.set(before)


def _module(name: str) -> Any:
    import importlib

    return importlib.import_module(f"tests.fused.{name}")
