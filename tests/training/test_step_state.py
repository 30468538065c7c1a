"""What a step saves, and that it goes on from there with the same bits."""

import numpy as np
import pytest

from bnengine.data import order
from bnengine.errors import InputError
from bnengine.layers import Activation, BatchNorm, Dense, Dropout
from bnengine.losses import SoftmaxCrossEntropy
from bnengine.network.sequential import Sequential
from bnengine.optim.optimizers import Adam
from bnengine.training.state import Average
from tests.network.support import batch, bits, cut, step_of
from tests.optimizers import EVERY

RATES = [0.02 / (1 + 0.1 * i) for i in range(20)]


def fresh(optimizer, dtype="float32", **options):
    network = Sequential(
        Dense(5, 8), BatchNorm(8), Activation("relu"), Dropout(0.3), Dense(8, 3), backend="numpy", dtype=dtype, seed=4
    )
    return step_of(network, optimizer, SoftmaxCrossEntropy(), clip_norm=1.0, average=Average(0.9), **options)


def batches():
    rng = np.random.default_rng(8)
    x, y = rng.standard_normal((60, 5)), rng.integers(0, 3, 60)
    found = []
    for epoch in range(4):
        rows = order(60, seed=1, epoch=epoch)
        found += [cut(batch(x[part], y[part])._replace(samples=part), 7) for part in np.split(rows, 5)]
    found[6] = [found[6][0]._replace(x=found[6][0].x * np.nan)]  # a skipped step before the stop, and one after it
    found[13] = [found[13][0]._replace(x=found[13][0].x * np.inf)]
    return found


def test_the_state_has_the_step_count_but_no_schedule():
    """Whether the schedule is given before the state or after it, the corrections of Adam belong to the next step."""
    given, results = batches(), []
    for after in (True, False):
        first, second = fresh(Adam()), fresh(Adam())
        first.schedule([0.02])
        for one in given[:4]:
            first(one)
        if not after:
            second.schedule([0.02])
        second.network.load_state_dict(first.network.state_dict())
        second.load_state_dict(first.state_dict())
        if after:
            second.schedule([0.02])
        for step in (first, second):
            for one in given[4:8]:
                step(one)
        assert bits(first) == bits(second)
        results.append(bits(second))
    assert results[0] == results[1]


@pytest.mark.parametrize("optimizer", EVERY, ids=repr)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_ten_steps_and_ten_more_from_saved_state_are_twenty(optimizer, dtype):
    whole, first = fresh(optimizer, dtype), fresh(optimizer, dtype)
    for step in (whole, first):
        step.schedule(RATES)
    given = batches()
    for one in given:
        whole(one)
    for one in given[:10]:
        first(one)
    network_state, state = first.network.state_dict(), first.state_dict()
    done = first.report().steps
    assert done == 9
    second = fresh(optimizer, dtype)
    for array in second.network.named_parameters().values():
        array[...] = 7.0
    second.network.load_state_dict(network_state)
    second.load_state_dict(state)
    second.schedule(RATES[done:])
    assert bits(second) == bits(first)
    for one in given[10:]:
        second(one)
    assert bits(second) == bits(whole)
    assert second.report() == whole.report()
    assert second.totals() == whole.totals()


def test_saved_state_is_a_copy_that_later_steps_leave_alone():
    step = fresh(Adam())
    given = batches()
    step(given[0])
    saved = {**step.state_dict(), **step.network.state_dict()}
    before = {name: array.copy() for name, array in saved.items()}
    step(given[1])
    for name, array in saved.items():
        np.testing.assert_array_equal(array, before[name])


def test_the_names_of_saved_state():
    step = fresh(Adam())
    parameters = ("0.W", "1.gamma", "1.beta", "4.W", "4.b")
    running = ("1.running_count", "1.running_mean", "1.running_var")
    assert set(step.state_dict()) == {
        "counters", "sums", "norm", *(f"optimizer.{slot}.{name}" for slot in "mv" for name in parameters),
        *(f"average.{name}" for name in (*parameters, *running)),
    }  # fmt: skip
    assert step.state_dict()["counters"].dtype == np.int64
    assert step.state_dict()["optimizer.m.0.W"].shape == (5, 8)


def test_a_step_without_slots_saves_only_counters():
    step = step_of(Sequential(Dense(2, 2), backend="numpy"))
    assert set(step.state_dict()) == {"counters", "sums", "norm"}


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda s: s.pop("optimizer.v.1.beta"), "optimizer.v.1.beta missing or unknown"),
        (lambda s: s.update({"optimizer.largest.0.W": np.zeros((5, 8))}), "optimizer.largest.0.W missing or unknown"),
        (lambda s: s.pop("counters"), "counters missing or unknown"),
        (lambda s: s.update({"counters": np.zeros(4, np.int64)}), r"counters must have shape \(5,\), got \(4,\)"),
        (
            lambda s: s.update({"optimizer.v.0.W": np.zeros((8, 5))}),
            r"optimizer.v.0.W must have shape \(5, 8\), got \(8, 5\)",
        ),
        (
            lambda s: s.update({"average.4.b": np.zeros(4)}),
            r"average.4.b must have shape \(3,\), got \(4,\)",
        ),
        (lambda s: s.update({"optimizer.v.4.b": np.asarray(["a", "b", "c"])}), "asarray"),
        (lambda s: s.update({"average.1.running_var": np.asarray(["a"] * 8)}), "asarray"),
    ],
)
def test_a_state_that_does_not_fit_changes_nothing(change, text):
    step, other = fresh(Adam()), fresh(Adam())
    given = batches()
    for one in given[:3]:
        step(one)
    other(given[0])
    state = step.state_dict()
    change(state)
    before, report = bits(other), other.report()
    with pytest.raises(InputError, match=text):
        other.load_state_dict(state)
    assert bits(other) == before
    assert other.report() == report


def test_the_error_names_at_most_four_of_many():
    with pytest.raises(
        InputError, match=r"^Step\.load_state_dict: .* missing or unknown. Use the optimizer and the"
    ) as e:
        fresh(Adam()).load_state_dict({})
    assert str(e.value).count("average.") == 4


def test_two_runs_are_the_same_bits():
    found = []
    for _ in range(2):
        step = fresh(Adam())
        step.schedule(RATES)
        for one in batches():
            step(one)
        found.append((bits(step), step.report()))
    assert found[0] == found[1]
