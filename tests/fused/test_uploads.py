"""Data that come to the device while it computes: right whichever stream is late, and as data that lie there."""

from typing import Any

import numpy as np
import pytest

from bnengine.fused.cuda import Uploads
from bnengine.training.resident import Resident
from tests.fused.training import epochs, make, snapshot, source

LATE = [(), ("null",), ("others",), ("null", "others")]


def trained(device: Any, steps: int, *, held: bool, **options: Any) -> Any:
    step, rows = make(device.backend(), steps, small=True, **options), source(nan=7)
    given = Resident(rows, step.inputs) if held else rows
    for _ in epochs(step, given, steps):
        pass
    return step


@pytest.mark.parametrize("graph", [True, False])
@pytest.mark.parametrize("late", LATE, ids="+".join)
def test_uploads_train_alike_whichever_stream_is_late(simulated, late, graph):
    """Work that is done only when somebody waits for it shows a wait that is missing, on either side."""
    expected = snapshot(trained(simulated, 9, held=True, graph=graph))
    simulated.streams.STATE.late = frozenset(late)
    assert snapshot(trained(simulated, 9, held=False, graph=graph)) == expected


@pytest.mark.parametrize(
    ("late", "forgotten"),
    [
        (("others",), "wait for the copy"),
        (("null",), "wait until it was read"),
        (("null", "others"), "wait for the host's memory"),
    ],
    ids=lambda v: v if isinstance(v, str) else "+".join(v),
)
def test_a_wait_that_is_left_out_is_seen(simulated, monkeypatch, late, forgotten):
    """The proof of the proof above: each of the three waits, left out, gives other bytes."""
    streams = simulated.streams
    expected = snapshot(trained(simulated, 9, held=True))
    wait, synchronize = streams.Stream.wait_event, streams.Event.synchronize

    def wait_event(stream: Any, event: Any) -> None:
        if stream.is_null != (forgotten == "wait for the copy"):
            wait(stream, event)

    if forgotten == "wait for the host's memory":
        monkeypatch.setattr(streams.Event, "synchronize", lambda event: None if event.stream else synchronize(event))
    else:
        monkeypatch.setattr(streams.Stream, "wait_event", wait_event)
    streams.STATE.late = frozenset(late)
    assert snapshot(trained(simulated, 9, held=False)) != expected


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
