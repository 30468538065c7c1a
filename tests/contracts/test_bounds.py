"""The bounds themselves, worked by hand for single numbers: none may grow without being noticed.

With u = 1 a bound is the number of units of rounding that it allows; bounds in float64 are in units of 2**-53.
"""

from typing import Any

import numpy as np
import pytest

from bnengine.ops import REGISTRY

DOUBLE = 2.0**-53
STATE = np.asarray([9, 0, 0, 0, 0]), np.asarray([True]), np.ones(1)


def a(*values: Any) -> np.ndarray:
    return np.asarray(values, np.float64)


def column(*values: float) -> np.ndarray:
    return a(*values).reshape(3, 1)


def assert_bound(name: str, args: tuple[Any, ...], options: dict[str, Any], expected: Any, u: float = 1.0) -> None:
    found = REGISTRY[name].contract.bound(u, *args, **options)
    found = found if isinstance(found, tuple) else (found,)
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        assert (one is None) == (other is None)
        if one is not None:
            np.testing.assert_allclose(one, other, rtol=1e-12)


# -- pointwise, dense, dropout ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "slope", "x", "allowed"),
    [
        ("identity", 0.2, -3.0, 1.2 * 30 + 10 * 3),
        ("relu", 0.2, -3.0, 1.2 * 30),
        ("relu", 0.2, 3.0, 1.2 * 30 + 10 * 3),
        ("leaky_relu", 2.0, -3.0, 2 * 30 + 10 * 6),
        ("leaky_relu", 0.01, -300.0, 1.2 * 3000 + 10 * 3),
        ("tanh", 0.2, 0.0, 0.0),
        ("sigmoid", 0.2, 0.0, 5.0),
    ],
)
def test_an_activation_adds_its_error_to_that_of_its_input(kind, slope, x, allowed):
    assert_bound("activation", (a(x),), {"kind": kind, "slope": slope}, [a(allowed)])
    weight, none, eps = a([x]), a(0.0), 0.0
    # The same sums in affine: |x W| + |b| = |x|; in normalize |x_norm| + 1 + |beta| with nothing else.
    assert_bound("affine", (a([1.0]), weight, none), {"activation": kind, "slope": slope}, [a([allowed])])
    more = max(1.2, slope) * 10
    options = {"activation": kind, "slope": slope, "eps": eps}
    assert_bound("normalize", (a([x]), column(1, 0, 1), a(1.0), none), options, [a([allowed + more])])


def test_the_bound_of_gelu_has_a_term_in_its_input():
    x = a(-3.0)
    y = REGISTRY["activation"](x, kind="gelu")
    own = 10 * (np.abs(y) + 3)
    assert_bound("activation", (x,), {"kind": "gelu"}, [1.2 * 30 + own])
    assert_bound("affine", (a([-3.0]), a([1.0])), {"activation": "gelu"}, [(1.2 * 30 + own)[None]])
    assert_bound("activation_backward", (a(-2.0), x, y), {"kind": "gelu"}, [a(10 * 2 * 1.2 * 4)])


def test_leaky_relu_falls_by_a_hundredth_where_no_slope_is_given():
    leaky = {"activation": "leaky_relu"}
    assert_bound("activation", (a(-300.0),), {"kind": "leaky_relu"}, [a(1.2 * 3000 + 30)])
    assert_bound("affine", (a([-300.0]), a([1.0])), leaky, [a([1.2 * 3000 + 30])])
    given = a([-300.0]), column(1, 0, 1), None, None
    assert_bound("normalize", given, {"eps": 0.0} | leaky, [a([1.2 * 3010 + 30])])


def test_the_derivative_of_an_activation():
    for kind in ("identity", "tanh", "relu"):
        assert_bound("activation_backward", (a(-2.0), a(-3.0), a(1.0)), {"kind": kind}, [a(24.0)])
    steep = {"kind": "leaky_relu", "slope": 3.0}
    assert_bound("activation_backward", (a(-2.0), a(-3.0), a(1.0)), steep, [a(60.0)])


def test_sums_and_products():
    assert_bound("total", (a(-2.0, 1.0), a(3.0, -4.0)), {}, [a(50.0, 50.0)])
    # |1 3| + |-2 4| + |-5| = 16, y = -10
    assert_bound("affine", (a([1.0, -2.0]), a([3.0], [4.0]), a(-5.0)), {}, [a([1.2 * 160 + 100])])
    assert_bound("affine", (a([1.0, -2.0]), a([3.0], [4.0])), {}, [a([1.2 * 110 + 50])])
    backward = a([1.0], [-2.0]), a([3.0], [-4.0]), a([-5.0]), a([1.0], [1.0])
    assert_bound("affine_backward", backward, {}, [a([60.0], [120.0]), a([132.0]), a(36.0)])
    assert_bound("affine_backward", backward, {"slope": 2.4}, [a([120.0], [240.0]), a([264.0]), a(72.0)])
    assert_bound("affine_backward", backward, {"input_gradient": False}, [None, a([132.0]), a(36.0)])


def test_sums_of_products_err_by_the_square_root_of_a_chain():
    ones = np.ones
    # 256 terms of size 1: sqrt(256/64) 10 u; 1,024 in chains of 256 the same, in one chain twice as much
    assert_bound("affine", (ones((1, 256)), ones((256, 1))), {}, [a([1.2 * 20 * 256 + 256 * 10])])
    assert_bound("affine", (ones((1, 1024)), ones((1024, 1))), {}, [a([1.2 * 20 * 1024 + 1024 * 10])])
    one_chain = {"chain": np.inf}
    assert_bound("affine", (ones((1, 1024)), ones((1024, 1))), one_chain, [a([1.2 * 40 * 1024 + 1024 * 10])])
    rows = ones((256, 1)), ones((256, 1)), a([1.0]), ones((256, 1))
    assert_bound("affine_backward", rows, {}, [12 * ones((256, 1)), a([24.0 * 256]), a(3072.0)])
    outputs = ones((1, 144)), a([1.0]), ones((1, 144)), ones((1, 144))
    assert_bound("affine_backward", outputs, {}, [a([18.0 * 144]), 12 * ones((1, 144)), 12 * ones(144)])


def test_what_is_rounded_on_its_way_through_a_product():
    # tf32 rounds both factors to 2^-11; a product stored in 16 bits, |x W| = 5, rounds once more before bias and relu
    x, W, b = a([1.0, -2.0]), a([3.0], [4.0]), a(-5.0)
    assert_bound("affine", (x, W), {"precision": "tf32"}, [a([1.2 * 2 * 2.0**-11 * 11])], u=0.0)
    assert_bound("affine", (x, W, b), {"between": 2.0**-8}, [a([1.2 * 2.0**-8 * 5])], u=0.0)
    backward = a([1.0], [-2.0]), a([3.0], [-4.0]), a([-5.0]), a([1.0], [1.0])
    rounded = [a([6.0], [12.0]) * 2.0**-10, a([13.2]) * 2.0**-10, a(0.0)]
    assert_bound("affine_backward", backward, {"precision": "tf32"}, rounded, u=0.0)
    # dz is stored where an activation makes it, and is dy itself without one
    assert_bound("affine_backward", backward, {"between": 0.5}, [a([0.0], [0.0]), a([0.0]), a(0.0)], u=0.0)
    stored = {"between": 0.5, "activation": "tanh"}
    assert_bound("affine_backward", backward, stored, [a([3.0], [6.0]), a([6.6]), a(0.0)], u=0.0)
    none = {"bias_gradient": False}
    assert_bound("affine_backward", backward, none, [a([60.0], [120.0]), a([132.0]), None])


def test_a_loss_scale_multiplies_the_bound_of_gradients_alone():
    given = a([2.0, -3.0]), np.asarray([1])
    value, slope = REGISTRY["softmax_cross_entropy"].contract.bound(1.0, *given, divisor=4)
    assert_bound("softmax_cross_entropy", given, {"divisor": 4, "scale": a(8.0)}, [value, 8 * slope])
    numbers = a([2.0, -3.0]), a([0.0, 1.0])
    for name in ("binary_cross_entropy", "mean_squared_error"):
        value, slope = REGISTRY[name].contract.bound(1.0, *numbers, divisor=4)
        assert_bound(name, numbers, {"divisor": 4, "scale": a(8.0)}, [value, 8 * slope])
    verdict = [0, 70 * DOUBLE / 8, 10.0 / 8, 0]
    assert_bound("check_step", (a(1.0), a(3.0, -4.0), column(0, 0, 0), a(8.0, 0, 0, 0)), {}, verdict)


def test_a_16_bit_copy_has_the_bound_of_the_parameters():
    p, g, table = a(-3.0), a(2.0), a([0.25], [0.5])
    assert_bound("sgd", (p, g, None, table, *STATE, p), {"decay_end": 1}, [a(50.0), None, a(50.0)])


def test_dropout_scales_and_its_mask_is_exact():
    options = {"seed": 1, "layer": 1, "rate": 0.75}
    assert_bound("dropout", (a([-3.0]), a(1), a(1)), options, [a([120.0]), a([0.0])])
    assert_bound("dropout_backward", (a([-3.0]), a([True])), {"rate": 0.75}, [a([120.0])])


# -- batch normalization ----------------------------------------------------------------------------------------------


def test_statistics():
    one, other = column(2, -3, 1), column(3, 5, 4)
    for u in (1.0, 2.0**-24):  # in float64 whatever u is
        assert_bound("merge", (one, other), {}, [10 * DOUBLE * column(5, 8, 5 + 64)], u)
        rule = a(True), a(0.5), a(True)
        assert_bound("commit", (one, other, *rule), {}, [10 * DOUBLE * column(8, 13, 9 + 169)], u)


@pytest.mark.parametrize("u", [2.0**-24, DOUBLE])
def test_moments(u):
    # 1 and -7: mean -3, standard deviation and mean distance 4
    mean = 10 * u * 4 + 10 * DOUBLE * 3
    rows = column(0, mean, 10 * u * 16 + mean**2)
    assert_bound("moments", (a([1.0], [-7.0]),), {}, [rows, rows], u)
    mean = 10 * DOUBLE * 3  # a constant: what the mean itself rounds by
    rows = column(0, mean, mean**2)
    assert_bound("moments", (a([-3.0], [-3.0]),), {}, [rows, rows], u)
    # A single outlier among four: mean distance 3/8 where the deviation is sqrt(3)/4.
    mean = 10 * u * 0.375 + 10 * DOUBLE * 0.25
    rows = column(0, mean, 10 * u * 3 / 16 + mean**2)
    assert_bound("moments", (a([1.0], [0.0], [0.0], [0.0]),), {}, [rows, rows], u)
    least = REGISTRY["moments"].contract.bound(u, a([0.0], [0.0])).batch
    np.testing.assert_array_equal(least, column(0, *[np.finfo(np.float64).tiny] * 2))


def test_normalize():
    # x_norm (7 - 1)/3 = 2, z = -6 + 4 - 5 = -7
    given = a([7.0]), column(4, 1, 4), a(-3.0), a(4.0), a([-5.0])
    narrow = 10 * (3 * (2 + 1) + 4 + 5)
    assert_bound("normalize", given, {"eps": 5.0}, [a([1.2 * narrow + 70])])
    assert_bound("normalize", given, {"eps": 5.0, "activation": "relu"}, [a([1.2 * narrow])])
    assert_bound("normalize", (*given[:2], None, None), {"eps": 5.0}, [a([1.2 * 30 + 20])])
    # In float64 the mean itself, 1 of 3 standard deviations, is rounded by that much.
    wide = DOUBLE * (1.2 * 10 * (3 * (2 + 1 + 1 / 3) + 4 + 5) + 70)
    assert_bound("normalize", given, {"eps": 5.0}, [a([wide])], DOUBLE)


@pytest.mark.parametrize("u", [2.0**-24, DOUBLE])
def test_batch_norm(u):
    # The bound of normalize with its own moments.
    x, rest, options = a([1.0], [-7.0]), (a(2.0), a(3.0), a([5.0], [-6.0])), {"eps": 9.0, "activation": "tanh"}
    bound, of = REGISTRY["batch_norm"].contract.bound, REGISTRY["normalize"].contract.bound
    y, batch, pending = bound(u, x, *rest, **options)
    np.testing.assert_array_equal(y, of(u, x, column(2, -3, 16), *rest, **options))
    expected = REGISTRY["moments"].contract.bound(u, x).batch
    np.testing.assert_array_equal(batch, expected)
    np.testing.assert_array_equal(pending, expected)


def test_the_bounds_of_normalize_default_to_eps_1e_5():
    given = a([1.0]), column(4, 0, 1 - 1e-5), None, None
    assert_bound("normalize", given, {}, [a([1.2 * 20 + 10])])
    backward = a([2.0]), given[0], given[0], *given[1:]
    # |dy| 2.4 with h = 2: dx = 2.4 + 2.4 + 2 4.8
    assert_bound("normalize_backward", backward, {}, [a([144.0]), None, None, None])


def test_normalize_backward():
    # inv_std 1/2, h = 1/2 + 1, |dy| 1.2 and 2.4; dgamma 1.5 3.6, dbeta 3.6; dx = 2 (|dy| + 1.8 + 1.5 2.7)
    dy, x, statistics = a([1.0], [-2.0]), a([1.0], [3.0]), column(2, 2, 1)
    given, options = (dy, x, x, statistics, a(-4.0), a(3.0)), {"eps": 3.0}
    assert_bound("normalize_backward", given, options, [a([141.0], [165.0]), None, a(54.0), a(36.0)])
    bare = dy, x, x, statistics, None, None, x
    assert_bound("normalize_backward", bare, options, [a([35.25], [41.25]), a([12.0], [24.0]), None, None])
    steep = options | {"slope": 2.4, "activation": "leaky_relu"}
    assert_bound("normalize_backward", given, steep, [a([282.0], [330.0]), None, a(108.0), a(72.0)])
    # gelu: the error of z, |gamma| 1.5 + |beta| + |add|, reaches dz
    more = 1 + 4 * 1.5 + 3 + a(1.0, 3.0).reshape(2, 1)
    dz = 10 * 1.2 * a([1.0], [2.0]) * more
    h = 1.5
    dx = 2 * (dz + dz.sum() / 2 + h * h * dz.sum() / 2)
    expected = [dx, dz, h * dz.sum(0), dz.sum(0)]
    assert_bound("normalize_backward", (*given, x), options | {"activation": "gelu"}, expected)
    # In float64 the mean, 2 of 2 deviations, is rounded by that much: h = 2.5.
    wide = [DOUBLE * v for v in (a([20.0], [20.0]) * (a([1.2], [2.4]) + 1.8 + 2.5 * 2.5 * 1.8), a(90.0), a(36.0))]
    assert_bound("normalize_backward", given, options, [wide[0], None, *wide[1:]], DOUBLE)


# -- losses -----------------------------------------------------------------------------------------------------------


def test_losses():
    logits, codes = a([1.0, -3.0], [0.5, 0.0]), np.asarray([0, 1])
    plain = {"divisor": 4}
    rows = 10 * a([1.0, 1.0], [0.375, 0.375])
    assert_bound("softmax_cross_entropy", (logits, codes), plain, [a(13.75), rows])
    weighted = 10 * a([2.5, 2.5], [3.75, 3.75])
    given = logits, codes, a(2.0, 5.0), a(0.5, 2.0)
    assert_bound("softmax_cross_entropy", given, plain, [a(62.5), weighted])
    # 1 + |l| (1 + |t|)
    given = a([-3.0], [2.0]), a([1.0], [0.0])
    assert_bound("binary_cross_entropy", given, plain, [a(25.0), a([5.0], [2.5])])
    assert_bound("binary_cross_entropy", (*given, a(2.0, 3.0)), plain, [a(57.5), a([10.0], [7.5])])
    # (|p| + |t|)^2 and |p| + |t|
    assert_bound("mean_squared_error", given, plain, [a(50.0), a([10.0], [5.0])])
    assert_bound("mean_squared_error", (*given, a(2.0, 3.0)), plain, [a(110.0), a([20.0], [15.0])])
    assert_bound("correct", (logits, codes), {}, [0])


# -- the end of a step ------------------------------------------------------------------------------------------------


def test_check_step_counters_and_sums():
    assert_bound("check_step", (a(1.0), a(3.0, -4.0), column(0, 0, 0)), {}, [0, 70 * DOUBLE, 10.0, None])
    assert_bound("count_step", STATE[:2], {}, [0, None])
    given = a(1.0, -2.0, 3.0, 4.0), a(-0.5), a(8.0), a(5.0), a(True)
    assert_bound("add_epoch_sums", given, {"rows": 7}, [10 * DOUBLE * a(5.0, 10.0, 8.0, 11.0)])
    assert_bound("average", (a(-2.0), a(3.0), a(True)), {"decay": 0.5}, [a(50.0)])


def test_optimizer_rules():
    p, g, state = a(-3.0), a(2.0), a(-4.0)
    table, decay = a([0.25], [0.5]), {"decay_end": 1, "weight_decay": 0.1}
    # |g| + 0.1 |p| = 2.3; velocity 4 + 2.3; p: 3 + 0.5 (6.3 + 2.3)
    assert_bound("sgd", (p, g, state, table, *STATE), decay, [a(73.0), a(63.0), None])
    assert_bound("sgd", (p, g, None, table, *STATE), decay, [a(53.0), None, None])
    assert_bound("sgd", (p, g, None, table, *STATE), {"decay_end": 1}, [a(50.0), None, None])
    # the divisor is at least sqrt(8 / 2) = 2
    given = p, g, a(8.0), a(-1.0), state, table, *STATE
    assert_bound("rmsprop", given, decay, [a(61.5), a(132.9), a(33.0), a(63.0), None])
    given = p, g, a(8.0), None, None, table, *STATE
    assert_bound("rmsprop", given, {"decay_end": 1}, [a(40.0), a(120.0), None, None, None])
    # least c1 0.25, largest c2 0.9: the divisor is at least sqrt(4 0.9 / 0.9) = 2
    table = a([0.5, 0.25, 0.3], [0.25, 0.5, 0.9])
    given = p, g, a(-1.0), a(4.0), a(7.0), table, *STATE
    assert_bound("adam", given, decay, [a(129.0), a(33.0), a(92.9), a(162.9), None])
    given = p, g, a(-1.0), a(4.0), None, table, *STATE
    assert_bound("adam", given, {"decay_end": 1}, [a(20 * (3 + 0.5 * 6)), a(30.0), a(80.0), None, None])
