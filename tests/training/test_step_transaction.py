"""A step that is not finite changes no bit; what comes after it is as if it had never been."""

import numpy as np
import pytest

from bnengine.layers import Activation, BatchNorm, Dense, Dropout, Residual
from bnengine.losses import MeanSquaredError
from bnengine.network.sequential import Sequential
from bnengine.optim.optimizers import Adam
from bnengine.training.state import Average
from tests.network.support import batch, bits, cut, running, step_of
from tests.optimizers import FULL


def ready(rng, optimizer=None, dtype="float64", **options):
    """A step with all kinds of state, after two successful steps, and a good batch."""
    network = Sequential(
        Dense(5, 6), BatchNorm(6), Activation("relu"), Dropout(0.2), Residual(Dense(6, 6), BatchNorm(6, decay=None)),
        Dense(6, 2), backend="numpy", dtype=dtype,
    )  # fmt: skip
    step = step_of(network, optimizer or Adam(), rate=0.01, average=Average(0.9), **options)
    good = batch(rng.standard_normal((8, 5)), rng.standard_normal((8, 2)))
    step([good])
    step([good])
    return step, good


def poisoned(good, place, value):
    """The batch with one bad value in its input or targets."""
    array = getattr(good, place).copy()
    array[3, 1] = value
    return good._replace(**{place: array})


@pytest.mark.parametrize("optimizer", FULL, ids=lambda o: o.name)
@pytest.mark.parametrize(
    ("place", "value"), [("x", np.nan), ("x", np.inf), ("x", -np.inf), ("y", np.nan), ("y", np.inf)]
)
def test_a_nonfinite_value_changes_no_bit_and_is_counted(rng, optimizer, place, value):
    step, good = ready(rng, optimizer)
    before = bits(step)
    step([poisoned(good, place, value)])
    assert bits(step) == before
    report = step.report()
    assert not report.ok
    assert report[3:7] == (2, 1, 1, 1)


@pytest.mark.parametrize("statistics", ["merged", "per_micro_batch"])
@pytest.mark.parametrize("bad", [0, 1, 2])
def test_one_bad_micro_batch_skips_the_whole_step(rng, statistics, bad):
    step, good = ready(rng, statistics=statistics)
    before = bits(step)
    micros = cut(good, 2, 5)
    micros[bad] = micros[bad]._replace(x=np.full_like(micros[bad].x, np.nan))
    step(micros)
    assert bits(step) == before
    assert step.report().skipped == 1


@pytest.mark.parametrize("clip", [None, 1.0])
def test_a_loss_that_overflows_skips_the_step(rng, clip):
    step, good = ready(rng, dtype="float32", clip_norm=clip)
    before = bits(step)
    step([good._replace(y=np.full((8, 2), 3e38))])
    assert bits(step) == before
    assert step.report().loss == np.inf


def test_a_gradient_that_overflows_skips_a_step_of_finite_loss():
    network = Sequential(Dense(1, 1, bias=False), backend="numpy", dtype="float32")
    network.named_parameters()["0.W"][...] = 0.0
    step = step_of(network, clip_norm=1.0)
    before = bits(step)
    step([batch(np.asarray([[1e30], [1e30]]), np.asarray([[1e15], [1e15]]))])  # loss 1e30, gradient 2e45
    report = step.report()
    assert np.isfinite(report.loss)
    assert (report.ok, bits(step)) == (False, before)


@pytest.mark.parametrize(("clip", "ok"), [(None, False), (1e30, False), (1.0, True)])
def test_a_gradient_whose_square_overflows_skips_the_step(clip, ok):
    network = Sequential(Dense(1, 1, bias=False), backend="numpy", dtype="float32")
    network.named_parameters()["0.W"][...] = 0.0
    step = step_of(network, Adam(), clip_norm=clip)
    step([batch(np.asarray([[1e12], [1e12]]), np.asarray([[1e13], [1e13]]))])  # gradient 2e25
    assert step.report().ok == ok
    assert all(np.isfinite(array).all() for array in step.state_dict().values())


def test_statistics_that_overflow_skip_the_step():
    network = Sequential(BatchNorm(2), backend="numpy", dtype="float64")
    step = step_of(network)
    before = bits(step)
    step([batch(np.asarray([[1e200, 1.0], [-1e200, 2.0]]), np.zeros((2, 2)))])  # a variance of 1e400
    report = step.report()
    assert np.isfinite(report.loss)
    assert np.isfinite(report.norm)
    assert (report.ok, bits(step)) == (False, before)


def test_a_nonfinite_batch_is_skipped_with_frozen_statistics_too(rng):
    step, good = ready(rng)
    step.network.freeze("statistics")
    before = bits(step)
    step([poisoned(good, "x", np.nan)])
    assert bits(step) == before
    assert not step.report().ok


@pytest.mark.parametrize("optimizer", FULL, ids=lambda o: o.name)
def test_bad_steps_between_good_ones_leave_no_trace(optimizer):
    results = []
    for interrupted in (False, True):
        step, good = ready(np.random.default_rng(5), optimizer)
        step.schedule([0.01, 0.02, 0.03])
        for _ in range(3):
            if interrupted:
                step([poisoned(good, "x", np.nan)])
                step([poisoned(good, "y", np.inf), good])
            step([good])
        results.append((bits(step), step.totals(), step.report().steps))
    assert results[0] == results[1]


def test_skips_are_counted_in_all_in_a_row_and_at_the_longest(rng):
    step, good = ready(rng)
    bad = poisoned(good, "x", np.nan)
    seen = []
    for one in (bad, bad, good, bad, bad, bad, good, good, bad):
        step([one])
        seen.append(step.report()[2:7])
    assert seen == [
        (False, 2, 1, 1, 1), (False, 2, 2, 2, 2), (True, 3, 2, 0, 2), (False, 3, 3, 1, 2), (False, 3, 4, 2, 2),
        (False, 3, 5, 3, 3), (True, 4, 5, 0, 3), (True, 5, 5, 0, 3), (False, 5, 6, 1, 3),
    ]  # fmt: skip


def test_the_padding_of_the_buffers_stays_zero(rng):
    step, good = ready(rng, Adam(amsgrad=True, weight_decay=0.01))
    for _ in range(10):
        step([good])
        step([poisoned(good, "x", np.nan)])
    flats = [step.network.parameters, *(f for f in step.state.slots.values() if f is not None), step.state.averaged[0]]
    for flat in flats:
        inside = np.zeros(flat.array.shape, bool)
        for a, b in flat.ranges(flat):
            inside[a:b] = True
        assert not inside.all()
        np.testing.assert_array_equal(flat.array[~inside], 0)


# -- averages ----------------------------------------------------------------------------------------------------------


def test_the_average_follows_each_successful_step(rng):
    network = Sequential(BatchNorm(3), backend="numpy", dtype="float64")
    step = step_of(network, average=Average(0.75))
    expected = [network.parameters.array.copy(), network.statistics.array.copy()]
    given = batch(rng.standard_normal((6, 3)), rng.standard_normal((6, 3)))
    for one in (given, poisoned(given, "x", np.nan), given, given):
        step([one])
        if step.report().ok:
            expected = [
                0.75 * a + 0.25 * b.array
                for a, b in zip(expected, (network.parameters, network.statistics), strict=True)
            ]
    for flat, array in zip(step.state.averaged, expected, strict=True):
        np.testing.assert_allclose(flat.array, array, rtol=1e-14)
    assert (step.state.averaged[0].array != network.parameters.array).any()


def test_without_an_average_there_is_none():
    assert step_of(Sequential(Dense(1, 1), backend="numpy")).state.averaged is None


def test_the_average_begins_as_a_copy_of_the_network(rng):
    network = Sequential(BatchNorm(3), backend="numpy", dtype="float64")
    given = batch(rng.standard_normal((6, 3)), rng.standard_normal((6, 3)))
    step_of(network)([given])
    step = step_of(network, average=Average(0.5))
    before = running(network)
    np.testing.assert_array_equal(step.state.averaged[1].array[:, :3], before)
    step([given])
    np.testing.assert_allclose(step.state.averaged[1].array[:, :3], (before + running(network)) / 2, rtol=1e-15)


def test_a_non_finite_parameter_is_never_hidden():
    network = Sequential(Dense(2, 2), backend="numpy")
    network.named_parameters()["0.W"][0, 0] = np.nan
    step = step_of(network, loss=MeanSquaredError())
    step([batch(np.ones((3, 2)), np.ones((3, 2)))])
    assert step.report().skipped_in_a_row == 1
