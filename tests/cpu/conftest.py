"""Fixtures of the native library: skipped where it was not built, unless BNENGINE_REQUIRE names `kernels`."""

import ctypes

import pytest

from bnengine import threads
from bnengine.fused.cpu import _load
from tests.cpu.driver import HERE, compiled
from tests.support import missing


@pytest.fixture
def native():
    """The loader of the native library, with two threads; the number of before comes back."""
    if reason := _load.available():
        missing("kernels", reason)
    before = threads.get()
    threads.set(2)
    yield _load
    threads.set(before)


@pytest.fixture
def kernels_for_tests(native, monkeypatch):
    """Adds the kernels of kernels_for_tests.cpp to those of the library."""
    opened = ctypes.CDLL(str(compiled(HERE / "kernels_for_tests.cpp", name="kernels", shared=True)))
    find = native.kernel

    def address(name: str) -> int:
        try:
            return ctypes.cast(getattr(opened, name), ctypes.c_void_p).value
        except AttributeError:
            return find(name)

    monkeypatch.setattr(native, "kernel", address)
