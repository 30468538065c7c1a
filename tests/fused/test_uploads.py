"""Data that come to the device while it computes: right whichever stream is late, and as data that lie there."""

from typing import Any

import numpy as np
import pytest

from bnengine.fused.cuda import Uploads
from bnengine.training.resident import Resident
from tests.fused.training import epochs, make, snapshot, source


def trained(device: Any, steps: int, *, held: bool, **options: Any) -> Any:
    step, rows = make(device.backend(), steps, small=True, **options), source(nan=7)
    given = Resident(rows, step.inputs) if held else rows
    for _ in epochs(step, given, steps):
        pass
    return step


@pytest.mark.parametrize(
    ("late", "forgotten", "graph"),
    [
        (("others",), "wait for the copy", False),
        (("null",), "wait until it was read", True),
        (("null", "others"), "wait for the host's memory", "auto"),
    ],
    ids=lambda v: v if isinstance(v, str) else None,
)
def test_uploads_train_alike_only_with_every_wait(simulated, monkeypatch, late, forgotten, graph):
    """A late stream works only when somebody waits for it: each wait, left out, gives other bytes."""
    streams = simulated.streams
    expected = snapshot(trained(simulated, 9, held=True, graph=graph))
    streams.STATE.late = frozenset(late)
    assert snapshot(trained(simulated, 9, held=False, graph=graph)) == expected
    wait, synchronize = streams.Stream.wait_event, streams.Event.synchronize

    def wait_event(stream: Any, event: Any) -> None:
        if stream.is_null != (forgotten == "wait for the copy"):
            wait(stream, event)

    if forgotten == "wait for the host's memory":
        monkeypatch.setattr(streams.Event, "synchronize", lambda event: None if event.stream else synchronize(event))
    else:
        monkeypatch.setattr(streams.Stream, "wait_event", wait_event)
    assert snapshot(trained(simulated, 9, held=False, graph=graph)) != expected


def test_a_batch_larger_than_those_before_takes_new_memory(device, rng):
    uploads, backend = Uploads(), device.backend()
    for size in (5, 3, 4000, 7, 9000):
        arrays = [rng.random((size, 3)), rng.integers(0, 9, size), rng.random(1, dtype=np.float32)]
        with uploads(arrays) as found:
            kept = [backend.xp.asarray(a, copy=True) for a in found]
        for array, got in zip(arrays, kept, strict=True):
            np.testing.assert_array_equal(backend.to_numpy(got), array)
            assert got.dtype == array.dtype


def test_batches_that_are_arrays_of_the_device_are_copied_there(simulated):
    here, there = (make(simulated.backend(), 4, small=True) for _ in range(2))
    batch = source().take(np.arange(13))
    here([batch])
    there([batch._replace(x=simulated.on_device(batch.x))])
    assert snapshot(here) == snapshot(there)
