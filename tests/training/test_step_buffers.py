"""What a step keeps: buffers of the right dtype on every library, and pending statistics until the check."""

import numpy as np
import pytest

from bnengine.layers import BatchNorm, Dense
from bnengine.network.sequential import Sequential
from bnengine.optim.optimizers import Adam
from tests.network.support import batch, bits, step_of


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_epoch_sums_are_float64_and_counters_int64(backend, dtype):
    network = Sequential(Dense(2, 1), BatchNorm(1), backend=backend, dtype=dtype)
    step = step_of(network, Adam())
    step([batch(np.asarray([[1.0, 2.0], [3.0, 5.0]]), np.asarray([[1.0], [2.0]]))])
    read = backend.to_numpy
    wide = (step.state.sums, step.state.correct, step.state.checked.norm, network.statistics.array)
    assert {read(a).dtype for a in wide} == {np.dtype("float64")}
    assert read(step.state.counters).dtype == np.int64
    own = [
        step.state.value,
        step.state.checked.factor,
        step.state.table.array,
        step.state.gradients.array,
        network.parameters.array,
    ]
    own += [flat.array for flat in step.state.slots.values() if flat is not None]
    assert {read(a).dtype for a in own} == {np.dtype(dtype)}


@pytest.mark.parametrize(("statistics", "buffers"), [("merged", 1), ("per_micro_batch", 3)])
def test_merged_statistics_need_one_buffer(statistics, buffers):
    step = step_of(Sequential(BatchNorm(1), backend="numpy"), statistics=statistics)
    for _ in range(2):
        step([batch(np.asarray([[1.0], [2.0]]), np.zeros((2, 1))) for _ in range(3)])
    assert len(step.state.pending) == buffers


@pytest.mark.parametrize("statistics", ["merged", "per_micro_batch"])
@pytest.mark.parametrize("bad", [0, 1, 2])
def test_the_statistics_of_every_micro_batch_are_judged(statistics, bad):
    """A variance of 1e400 in one of three; loss and gradients stay finite."""
    step = step_of(Sequential(BatchNorm(1), backend="numpy", dtype="float64"), statistics=statistics)
    before = bits(step)
    step([batch(np.asarray([[1.0], [-1.0]]) * (1e200 if i == bad else 1), np.zeros((2, 1))) for i in range(3)])
    report = step.report()
    assert np.isfinite([report.loss, report.norm]).all()
    assert (report.ok, bits(step)) == (False, before)
