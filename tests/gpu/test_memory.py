"""Training takes no more memory, step after step: neither of the device nor of Python."""

import gc
import sys
import tracemalloc
from collections.abc import Callable
from typing import Any

import numpy as np

from bnengine.data import ArraySource
from bnengine.training.resident import Resident
from tests.fused.training import X, Y, make

MICRO, ROWS = (13, 6), 19  # the rows of a step, in two micro-batches
WARM = 10  # steps in which everything that is kept is taken
PEAK = 64 << 10  # bytes that Python may take for a moment
WITH_MODEL = 1 << 20  # where the device itself is Python and NumPy


def growth(step: Callable[[int], Any], count: int) -> tuple[int, int, int]:
    """What `count` steps after the first ones add to the pool's used and total bytes; the peak of Python's own."""
    pool = sys.modules["cupy"].get_default_memory_pool()
    for t in range(WARM):
        step(t)
    gc.collect()
    pool.free_all_blocks()  # what was freed before would serve what comes
    used, total = pool.used_bytes(), pool.total_bytes()
    tracemalloc.start()
    try:
        for t in range(WARM, WARM + count):
            step(t)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    return pool.used_bytes() - used, pool.total_bytes() - total, peak


def resident(device: Any, count: int, **options: Any) -> Callable[[int], Any]:
    """Steps of one epoch on data that lie on the device."""
    step, rows = make(device.backend(), WARM + count, small=True, **options), (WARM + count) * ROWS
    data = Resident(ArraySource(X[np.arange(rows) % len(X)], Y[np.arange(rows) % len(X)]), step.inputs)
    starts = range(0, rows, ROWS)
    data.start(np.arange(rows), [[slice(s, s + MICRO[0]), slice(s + MICRO[0], s + ROWS)] for s in starts])
    return lambda _t: step.next(data)


def test_steps_on_resident_data_allocate_nothing(device, many):
    count = many(10_000, 15)
    used, total, peak = growth(resident(device, count, graph=True), count)
    assert (used, total) == (0, 0)
    assert peak < many(PEAK, WITH_MODEL)


def test_steps_on_data_of_the_host_keep_what_they_have(device, many):
    count = many(2000, 10)
    step, source = make(device.backend(), WARM + count, small=True), ArraySource(X[:200], Y[:200])
    batches = [source.take(np.arange(s, s + ROWS)) for s in range(0, 190, ROWS)]
    used, total, _ = growth(lambda t: step([batches[t % 10]]), count)
    assert (used, total) == (0, 0)


def test_an_allocation_that_is_kept_is_seen(device):
    step, kept = resident(device, 10, graph=False), []
    used, total, _ = growth(lambda t: (step(t), kept.append(device.fresh((1 << 20,), np.uint8))), 10)
    assert used >= 10 << 20
    assert total >= 10 << 20


def test_what_python_takes_for_a_moment_is_seen(device):
    step = resident(device, 10, graph=False)
    assert growth(lambda t: (step(t), bytes(WITH_MODEL)), 10)[2] >= WITH_MODEL
