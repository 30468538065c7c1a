"""Trainings that are ours, trainings that are not, and how far they may differ."""

from math import inf, nan

import numpy as np
import pytest

from bnengine.arrays.backend import get_backend
from bnengine.lab.bench import ours as module
from bnengine.lab.bench.agreement import MOVED, bounds, compare, disagreement, moved
from bnengine.lab.bench.cases import REFERENCE
from bnengine.lab.bench.machine import Machine
from bnengine.lab.bench.ours import OurPeer, Ours
from bnengine.lab.bench.workloads import Workload
from bnengine.optim.optimizers import Adam

SMALL = Workload("12-16-16-5", (12, 16, 16, 5), 16, rows=512)
CPU = Machine(get_backend("numpy"))
U = 2.0**-24


@pytest.fixture
def ours():
    return Ours(CPU, SMALL, SMALL.data())


@pytest.fixture(scope="module")
def known():
    return OurPeer(REFERENCE, CPU).compared(Ours(CPU, SMALL, SMALL.data()), "highest").values()


def test_the_bound_is_three_times_the_largest_change_so_far_and_ten_roundings():
    repeated = [[2.0, 1.01, 4.0], [2.0, 0.98, 4.04]]
    assert bounds([2.0, 1.0, 4.0], repeated) == pytest.approx([10 * U, 0.06 + 10 * U, 0.06 + 10 * U])
    assert bounds([2.0, 1.0, 4.0], []) == [10 * U] * 3


@pytest.mark.parametrize("wrong", [2.002, 2.1, nan, inf, -2.0])
def test_a_loss_outside_its_bound_is_named_with_its_step(wrong):
    found = compare([2.0, 1.0], [wrong, 1.01], [0.01, 0.02])
    assert (found.loss, found.difference, found.bound) == (1.01, pytest.approx(0.01), 0.02)
    if wrong == 2.002:
        assert found.void is None
    else:
        assert found.void.startswith("at step 1 the loss is ")
        assert "ours 2: a difference of" in found.void
        assert found.void.endswith("0.01 is allowed")


def test_matrices_alone_are_moved_by_more_than_a_rounding():
    weights = {"0.W": np.full((3, 4), 2.0, np.float32), "0.b": np.ones(4, np.float32), "1.gamma": np.ones(4)}
    state = moved(weights, 0.25, 0)
    assert set(np.unique(state["0.W"])) == {1.5, 2.5}
    assert state["0.W"].dtype == np.float32
    assert state["0.b"] is weights["0.b"]
    assert np.any(moved(weights, 0.25, 1)["0.W"] != state["0.W"])
    assert MOVED == {"highest": 2.0**-20, "tf32": 2.0**-10, "bfloat16": 2.0**-7}


def test_the_same_training_agrees_bit_for_bit_and_a_rounding_of_the_weights_within_the_bound(ours, known):
    base, allowed = known
    found = compare(base, ours.losses(), allowed)
    assert (found.void, found.difference) == (None, 0.0)
    assert base[-1] < base[0]  # it learns: a training without progress would agree with too much
    ours.weights = moved(ours.weights, 4 * U, 7)
    assert compare(base, ours.losses(), allowed).void is None


@pytest.mark.parametrize("other", ["learning rate", "moments", "eps", "batches"])
def test_another_training_does_not_agree(monkeypatch, ours, known, other):
    base, allowed = known
    if other == "learning rate":
        monkeypatch.setattr(module, "LEARNING_RATE", 1.01e-3)
    elif other == "moments":
        ours.step.state.optimizer = Adam(beta2=0.99)
    elif other == "eps":
        for layer in (layer for layer in ours.network.layers if hasattr(layer, "eps")):
            layer.eps = 1e-3
    else:
        ours.data = ours.data._replace(orders=np.roll(ours.data.orders, SMALL.batch, axis=1))
    assert compare(base, ours.losses(), allowed).void is not None


def test_results_are_compared_as_shares_of_the_largest_element():
    a = np.asarray([1.0, -2.0, 4.0])
    assert disagreement(a, np.asarray([1.0, -1.7, 4.0]), 0.1) is None
    message = disagreement(a, np.asarray([1.0, -1.5, 4.0]), 0.1)
    assert message == "the results differ by 0.12 of the largest, 0.1 is allowed"
    assert "nan" in (disagreement(a, a * np.nan, 0.1) or "")
    assert disagreement(a, a[:2], 0.1) == "the results are of shape (3,) and (2,)"
    assert disagreement(a, -a, None) is None
