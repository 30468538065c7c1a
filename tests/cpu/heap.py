"""What a piece of code asks for: bytes of the C heap, Python's own, and pages that the system has to find."""

import ctypes
import gc
import resource
import tracemalloc
from collections.abc import Callable
from typing import NamedTuple

import pytest

from tests.cuda_on_cpu.redzones import sanitized


class Info(ctypes.Structure):
    """mallinfo2's."""

    _fields_ = [(name, ctypes.c_size_t) for name in (
        "arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks", "fordblks", "keepcost",
    )]  # fmt: skip


class Asked(NamedTuple):
    """Bytes by which the C heap's in-use total grew, Python's traced peak in bytes, and minor page faults."""

    heap: int
    traced: int
    faults: int


def asked_by(run: Callable[[], object], times: int = 1000) -> Asked:
    """What `times` calls allocate after as many warm-up calls; the test is skipped where nothing counts."""
    if sanitized():
        pytest.skip("a sanitizer has its own heap, which mallinfo2 does not count")
    held = _held()
    gc.collect()
    gc.disable()
    try:
        for _ in range(times):
            run()
        before, faults = held(), _faults()
        for _ in range(times):
            run()
        after, faults = held(), _faults() - faults
        tracemalloc.start()
        for _ in range(times):
            run()
        return Asked(after - before, tracemalloc.get_traced_memory()[1], faults)
    finally:
        tracemalloc.stop()
        gc.enable()


def _held() -> Callable[[], int]:
    """Asks for what the C heap has given out, mapped memory with it."""
    try:
        ask = ctypes.CDLL(None).mallinfo2
    except AttributeError:
        pytest.skip("this C library has no mallinfo2")
    ask.restype = Info

    def held() -> int:
        found = ask()
        return int(found.uordblks + found.hblkhd)

    held()  # the first call allocates for itself
    return held


def _faults() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
