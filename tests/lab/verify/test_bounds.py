"""The bounds of passes: wide enough for rounding, far too narrow for a mistake."""

import numpy as np
import pytest

from bnengine import ops
from bnengine.arrays.backend import get_backend
from bnengine.lab.verify.bounds import Perturbed, bound_of, bounds_of_runs
from bnengine.lab.verify.draws import Draws, signs
from bnengine.lab.verify.layers import perturbations, run
from bnengine.lab.verify.variants import Variant, representable
from bnengine.layers import Activation, BatchNorm, Dense
from bnengine.network.sequential import Sequential
from bnengine.runtime.memory import Memory

U = 2.0**-24


@pytest.fixture
def exact():
    return Variant(get_backend("numpy"), "float64")


def test_a_perturbed_op_errs_by_its_bound_in_both_directions(rng):
    x, W = rng.standard_normal((5, 4)), rng.standard_normal((4, 3))
    up, down = (ops.affine(x, W, memory=Perturbed(U, signs(0, 0), sign)) for sign in (1, -1))
    true = x @ W
    np.testing.assert_allclose(np.abs(up - true), ops.affine.contract.bound(U, x, W), rtol=1e-6)
    np.testing.assert_allclose(up - true, true - down, rtol=1e-6)
    assert (up > true).any()
    assert (up < true).any()


def test_a_unit_of_uncertain_sign_flips_in_one_run_of_a_pair():
    x, W = np.asarray([[1.0, 1.0]]), np.asarray([[1.0], [-1.0 + 1e-9]])
    ys = [ops.affine(x, W, activation="relu", memory=Perturbed(U, signs(0, 0), sign)) for sign in (1, -1)]
    assert sorted(float(y[0, 0]) > 0 for y in ys) == [False, True]


def test_a_unit_that_is_off_for_certain_stays_exactly_off():
    x, W = np.asarray([[1.0]]), np.asarray([[-1.0]])
    for sign in (1, -1):
        assert ops.affine(x, W, activation="relu", memory=Perturbed(U, signs(0, 0), sign))[0, 0] == 0


def test_gradients_held_back_by_relu_have_no_error():
    dy, y = np.ones((4, 2)), np.asarray([[0.0, 1.0]] * 4)
    x, W = np.ones((4, 3)), np.ones((3, 2))
    args, options = (dy, x, W, y), {"activation": "relu"}
    bound = bound_of(ops.affine_backward, U, args, options, ops.affine_backward.reference(*args, **options))
    assert np.all(bound["dW"][:, 0] == 0)
    assert np.all(bound["dW"][:, 1] > 0)


def test_the_first_step_of_adam_has_a_finite_bound():
    p, g = np.asarray([1.0, 0.0, 1.0]), np.asarray([1e-3, 0.0, -1e-12])
    zero = np.zeros(3)
    table, counters = np.asarray([[0.01, 0.1, 0.001]]), np.zeros(5, np.int64)
    args = (p, g, zero, zero, None, table, counters, np.asarray([True]), np.ones(1))
    result = ops.adam.reference(*args, decay_end=0)
    bound = bound_of(ops.adam, U, args, {"decay_end": 0}, result)["parameters"]
    assert np.all(bound <= 20 * U * (np.abs(p) + 0.01 * 11) * 1.01)
    assert bound[1] == 0


def test_a_square_is_never_perturbed_below_zero():
    args = (np.ones(8), *[np.zeros(8)] * 3, None, np.asarray([[0.01, 0.1, 0.001]]), np.zeros(5, np.int64))
    for sign in (1, -1):
        memory = Perturbed(2.0**-53, signs(0, 0), sign)
        state = ops.adam(*args, np.asarray([True]), np.ones(1), decay_end=0, memory=memory)
        assert np.all(state.v >= 0)
        again = ops.adam(
            state.parameters, args[1], state.m, state.v, *args[4:], np.asarray([True]), np.ones(1), decay_end=0
        )
        assert np.all(np.isfinite(again.parameters))


def test_sums_over_many_rows_may_err_more_in_float64_only():
    for rows in (100, 10_000):
        x = np.linspace(0, 1, rows)[:, None]
        for u, factor in ((U, 1.0), (2.0**-53, 1 + np.sqrt(rows) / 10)):
            mean = bound_of(ops.moments, u, (x,), {}, None)["batch"][1]
            np.testing.assert_allclose(mean, factor * 10 * u * 0.25, rtol=0.02 + 8 * 2.0**-53 / u)


def layers():
    return Dense(8, 6), BatchNorm(6), Activation("relu"), Dense(6, 5), Activation("tanh")


def test_bounds_of_a_pass_allow_float32_and_no_mistake(exact):
    draws = Draws(0, "test")
    x, dy = representable(draws.standard_normal((40, 8))), representable(draws.standard_normal((40, 5)))
    network = Sequential(*layers(), backend="numpy", dtype="float64")
    state = {name: representable(a) for name, a in network.state_dict().items()}
    network.load_state_dict(state)
    truth = run(network, x, dy, True, Memory("reference"), exact)
    bounds = bounds_of_runs(truth, [run(network, x, dy, True, memory, exact) for memory in perturbations(U, 0)])
    single = Sequential(*layers(), backend="numpy", dtype="float32")
    single.load_state_dict(state)
    got = run(single, x, dy, True, Memory("reference"), exact._replace(dtype="float32"))
    for name, array in truth.items():
        error = np.abs(got[name] - array)
        assert np.all(error <= bounds[name]), name
        largest = np.abs(array).max(axis=tuple(range(array.ndim - 1))) if array.ndim > 1 else np.abs(array).max()
        assert np.all(1e-4 * largest >= bounds[name]), name
