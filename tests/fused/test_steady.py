"""A steady step asks for no memory, not even for a moment: neither the device's pool nor Python."""

import gc
import tracemalloc
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from bnengine.data import ArraySource
from bnengine.training.resident import Resident
from bnengine.training.step import Step
from tests.fused.training import X, Y, make

STEPS, WARM, ROWS = 1000, 6, 5
PEAK = 64 << 10  # bytes


def steady(device: Any, steps: int = STEPS, **options: Any) -> tuple[Step, Resident]:
    """A step that has run a few times, and the data of a long epoch on the device."""
    count = WARM + steps
    step = make(device.backend(), count, small=True, **options)
    rows = np.arange(count * ROWS) % len(X)
    parts = [[slice(a, a + ROWS)] for a in range(0, len(rows), ROWS)]
    held = Resident(ArraySource(X[rows], Y[rows]), step.inputs)
    held.start(np.arange(len(rows)), parts)
    for _ in range(WARM):
        step.next(held)
    return step, held


@pytest.mark.parametrize("graph", [True, False])
def test_a_thousand_steps_ask_the_device_for_no_memory(device, many, graph):
    """The simulated device allocates for the same reason in every step, so that there twenty are enough."""
    steps = many(STEPS, 20)
    step, rows = steady(device, steps, graph=graph)
    held = step.memory.nbytes
    with device.counted_mallocs() as asked:
        for _ in range(steps):
            step.next(rows)
    assert asked.count == 0
    assert step.memory.nbytes == held
    assert step.report().steps == WARM + steps


@pytest.mark.parametrize("kept", [True, False])
def test_an_allocation_planted_in_a_launch_is_seen(device, kept):
    (step, held), holder = steady(device, 10, graph=False), []
    (plan,) = step.plans.values()
    first = plan.launches[0]

    def planted(*arguments: Any) -> None:
        made = device.fresh((7,))
        if kept:
            holder.append(made)
        first.kernel(*arguments)

    plan.launches[0] = first._replace(kernel=planted)
    with device.counted_mallocs() as asked:
        for _ in range(10):
            step.next(held)
    assert asked.count == 10


def peak_of(run: Callable[[], None]) -> int:
    """The most that Python and NumPy held at once over a thousand calls, beyond what they hold already."""
    gc.collect()
    tracemalloc.start()
    try:
        for _ in range(STEPS):
            run()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_a_thousand_replayed_steps_take_less_than_64_kib(simulated, monkeypatch):
    """The simulated device is itself Python and NumPy, so here its work is left undone."""
    step, held = steady(simulated, graph=True)
    monkeypatch.setattr(simulated.streams.Stream, "add", lambda _stream, _work: None)
    assert peak_of(lambda: step.next(held)) < PEAK


def test_a_thousand_leaked_objects_are_seen(simulated, monkeypatch):
    (step, held), left = steady(simulated, graph=True), []
    monkeypatch.setattr(simulated.streams.Stream, "add", lambda _stream, _work: left.append(bytes(64)))
    assert peak_of(lambda: step.next(held)) > PEAK
