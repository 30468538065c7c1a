"""Trainings that are ours, trainings that are not, and what may lie between."""

from math import inf, nan

import numpy as np
import pytest

from bnengine.arrays.backend import get_backend
from bnengine.lab.bench.agreement import MOVED, bounds, compare, disagreement, losses, losses_from_here, moved
from bnengine.lab.bench.machine import Machine
from bnengine.lab.bench.ours import Ours, reference
from bnengine.lab.bench.workloads import LEARNING_RATE, Workload
from bnengine.optim.optimizers import Adam

SMALL = Workload("12-16-16-5", (12, 16, 16, 5), 16, rows=512)


@pytest.fixture(scope="module")
def ours():
    return Ours(Machine(get_backend("numpy")), SMALL, SMALL.data())


@pytest.fixture(scope="module")
def known(ours):
    return reference(ours, "highest")


def test_the_bound_is_three_times_the_largest_change_so_far_and_ten_roundings():
    base = [2.0, 1.0, 4.0]
    repeated = [[2.0, 1.01, 4.0], [2.0, 0.98, 4.04]]
    u = 2.0**-24
    assert bounds(base, repeated) == pytest.approx([10 * u, 0.06 + 10 * u, 0.06 + 10 * u])
    assert bounds(base, []) == [10 * u] * 3


def test_losses_within_their_bounds_agree_and_the_last_one_is_told():
    found = compare([2.0, 1.0], [2.002, 1.01], [0.01, 0.02])
    assert found.void is None
    assert (found.loss, found.bound) == (1.01, 0.02)
    assert found.difference == pytest.approx(0.01)


@pytest.mark.parametrize("wrong", [2.1, nan, inf, -2.0])
def test_a_loss_outside_its_bound_makes_the_comparison_void_and_names_the_step(wrong):
    found = compare([2.0, 1.0], [wrong, 1.0], [0.01, 0.02])
    assert found.void is not None
    assert found.void.startswith("at step 1 the loss is ")
    assert "ours 2: a difference of" in found.void
    assert found.void.endswith("0.01 is allowed")


def test_only_matrices_are_moved_by_the_share_that_is_asked_for():
    weights = {"0.W": np.full((3, 4), 2.0, np.float32), "0.b": np.ones(4, np.float32), "1.gamma": np.ones(4)}
    state = moved(weights, 0.25, 0)
    assert set(np.unique(state["0.W"])) == {1.5, 2.5}
    assert state["0.W"].dtype == np.float32
    assert state["0.b"] is weights["0.b"]
    assert np.any(moved(weights, 0.25, 1)["0.W"] != state["0.W"])
    np.testing.assert_array_equal(moved(weights, 0.25, 0)["0.W"], state["0.W"])


def test_what_is_moved_is_more_than_a_rounding_and_less_than_a_percent():
    assert MOVED["highest"] == 2.0**-20
    assert MOVED["tf32"] == 2.0**-10
    assert MOVED["bfloat16"] == 2.0**-7


def test_the_same_training_again_agrees_bit_for_bit(ours, known):
    base, allowed = known
    found = compare(base, losses(ours), allowed)
    assert (found.void, found.difference) == (None, 0.0)
    assert base[-1] < base[0]  # it learns: a training without progress would agree with too much


def test_a_rounding_of_the_weights_agrees(ours, known):
    base, allowed = known
    ours.start(moved(ours.weights, 4 * 2.0**-24, 7))
    assert compare(base, losses_from_here(ours), allowed).void is None


def test_another_learning_rate_does_not_agree(ours, known):
    base, allowed = known
    ours.start()
    ours.step.schedule([1.01 * LEARNING_RATE] * 20)
    assert compare(base, losses_from_here(ours), allowed).void is not None


def test_results_are_compared_as_shares_of_the_largest_element():
    a = np.asarray([1.0, -2.0, 4.0])
    assert disagreement(a, np.asarray([1.0, -1.7, 4.0]), 0.1) is None
    message = disagreement(a, np.asarray([1.0, -1.5, 4.0]), 0.1)
    assert message == "the results differ by 0.12 of the largest, 0.1 is allowed"
    assert "nan" in (disagreement(a, a * np.nan, 0.1) or "")
    assert disagreement(a, a[:2], 0.1) == "the results are of shape (3,) and (2,)"
    assert disagreement(a, -a, None) is None


def test_other_batches_do_not_agree(ours, known):
    base, allowed = known
    ours.start()
    ours.at = 1
    assert compare(base, losses_from_here(ours), allowed).void.startswith("at step 1 ")


def test_other_moments_of_adam_do_not_agree(ours, known):
    base, allowed = known
    ours.start()
    try:
        ours.step.state.optimizer = Adam(beta2=0.99)
        ours.step.schedule([LEARNING_RATE] * 20)
        assert compare(base, losses_from_here(ours), allowed).void is not None
    finally:
        ours.step.state.optimizer = Adam()


def test_another_eps_of_batch_normalisation_does_not_agree(ours, known):
    base, allowed = known
    layers = [layer for layer in ours.network.layers if hasattr(layer, "eps")]
    assert len(layers) == 2
    before = [layer.eps for layer in layers]
    try:
        for layer in layers:
            layer.eps = 1e-3
        assert compare(base, losses(ours), allowed).void is not None
    finally:
        for layer, eps in zip(layers, before, strict=True):
            layer.eps = eps
