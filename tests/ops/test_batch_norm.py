"""Batch normalization on inputs that cancel, vanish, overflow or are missing, and two batches worked by hand."""

import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bnengine import ops

U32, U64 = 2.0**-24, 2.0**-53
YES, NO = np.asarray([True]), np.asarray([False])


def column(*values):
    """Statistics of one channel: count, mean, biased variance."""
    return np.asarray(values, np.float64).reshape(3, 1)


# -- moments ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mean", [1e6, -1e6, 1e8])
def test_a_large_mean_costs_the_variance_nothing(mean):
    x = (mean + np.arange(64.0) - 32).reshape(-1, 1)
    count, found, var = ops.moments(x).batch[:, 0]
    assert count == 64
    assert found == mean - 0.5
    assert var == pytest.approx((64**2 - 1) / 12, rel=1e-14)


@pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan])
@pytest.mark.parametrize("row", [0, 3, 6])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_row_that_is_not_finite_spoils_its_channel_alone(rng, value, row, dtype):
    x = rng.standard_normal((7, 3)).astype(dtype)
    clean = ops.moments(x).batch
    x[row, 1] = value
    with np.errstate(invalid="ignore"):
        batch = ops.moments(x).batch
        y = ops.normalize(x, batch, None, None)
    assert not np.isfinite(batch[1:, 1]).any()
    assert np.isnan(y[row, 1])
    assert not np.isfinite(y[:, 1]).any()
    np.testing.assert_allclose(batch[:, [0, 2]], clean[:, [0, 2]], rtol=1e-15)
    assert np.isfinite(y[:, [0, 2]]).all()


def test_pending_statistics_may_have_a_destination(rng):
    x = rng.standard_normal((6, 2))
    pending = ops.moments(x[:2]).batch.copy()
    found = ops.moments(x[2:], into={"pending": ops.Out(pending, adds=True)})
    assert found.pending is pending
    np.testing.assert_array_equal(found.batch, ops.moments(x[2:]).batch)
    np.testing.assert_allclose(pending, ops.moments(x).batch, rtol=1e-14)


# -- merge ------------------------------------------------------------------------------------------------------------


def test_an_empty_sample_changes_nothing_whatever_it_holds():
    some, empty = column(3, 0.1, 0.7), column(0, 1e100, np.nan)
    np.testing.assert_array_equal(ops.merge(some, empty), some)
    np.testing.assert_array_equal(ops.merge(empty, some), some)
    np.testing.assert_array_equal(ops.merge(column(0, 0, 1), column(0, 5, 5)), column(0, 0, 1))


def test_statistics_that_are_not_finite_stay_so_in_the_union():
    with np.errstate(invalid="ignore"):
        for bad in (column(2, np.nan, np.nan), column(2, np.inf, np.nan)):
            assert not np.isfinite(ops.merge(bad, column(2, 1, 1))[1:]).any()
            assert not np.isfinite(ops.merge(column(2, 1, 1), bad)[1:]).any()


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    values=st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=40),
    offset=st.sampled_from([0.0, 1e6]),
    cuts=st.lists(st.integers(0, 40), max_size=6),
    order=st.randoms(use_true_random=False),
)
def test_the_parts_of_any_split_merge_to_the_whole_in_any_order(values, offset, cuts, order):
    x = np.asarray(values).reshape(-1, 1) + offset
    edges = [0, *sorted(min(c, len(x)) for c in cuts), len(x)]
    parts = [ops.moments(x[a:b]).batch if b > a else column(0, 0, 1) for a, b in pairwise(edges)]
    order.shuffle(parts)
    merged = parts[0]
    for part in parts[1:]:
        merged = ops.merge(merged, part)
    whole, longest = ops.moments(x).batch, x.astype(np.longdouble)
    assert merged[0, 0] == len(x)
    largest = float(np.abs(longest).max())
    underflow = 10 * len(parts) * 5e-324
    for found in (merged, whole):
        assert abs(found[1, 0] - longest.mean()) <= 10 * len(parts) * U64 * largest + underflow
        # Means are off by at most u |x|, in the square of a distance between means of at most twice the deviation.
        spread = float(np.abs(longest - longest.mean()).max())
        allowed = 10 * len(parts) * U64 * (4 * spread**2 + 2 * spread * largest) + (20 * U64 * largest) ** 2 + underflow
        assert abs(found[2, 0] - longest.var()) <= allowed
        assert found[2, 0] >= 0


# -- commit -----------------------------------------------------------------------------------------------------------


def committed(running, pending, decay, unbiased, ok=YES):
    channels = running.shape[1]
    return ops.commit(running, pending, ok, np.full(channels, decay), np.full(channels, unbiased))


@pytest.mark.parametrize("decay", [0.9, 0.0, -1.0])
@pytest.mark.parametrize("pending", [column(4, 1, 3), column(4, np.nan, np.inf)])
def test_a_skipped_step_leaves_every_bit(decay, pending):
    running = column(3, 0.1, 0.7)
    with np.errstate(invalid="ignore"):
        assert committed(running, pending, decay, True, ok=NO).tobytes() == running.tobytes()


@pytest.mark.parametrize("decay", [0.9, 0.0, -1.0])
def test_a_proposal_of_count_0_leaves_every_bit(decay):
    running = column(3, 0.1, 0.7)
    for nothing in (column(0, 5, 5), column(0, np.nan, np.nan)):
        assert committed(running, nothing, decay, True).tobytes() == running.tobytes()


# -- normalize --------------------------------------------------------------------------------------------------------


def test_a_batch_worked_by_hand():
    x = np.asarray([[1.0], [3.0]])  # mean 2, var 1; eps 3 makes the divisor 2
    y = ops.normalize(x, ops.moments(x).batch, np.asarray([10.0]), np.asarray([1.0]), eps=3.0)
    assert y.tolist() == [[-4.0], [6.0]]
    added = ops.normalize(x, ops.moments(x).batch, None, None, np.asarray([[0.25], [-1.0]]), eps=3.0, activation="relu")
    assert added.tolist() == [[0.0], [0.0]]
    leaky = ops.normalize(x, column(2, 2, 1), None, None, eps=3.0, activation="leaky_relu", slope=0.5)
    assert leaky.tolist() == [[-0.25], [0.5]]


def test_eps_is_1e_5_and_stands_under_the_root():
    x = np.asarray([[1.0], [-1.0]])
    assert ops.normalize(x, column(2, 0, 0), None, None)[0, 0] == pytest.approx(math.sqrt(1e5), rel=1e-14)


def test_the_gradients_of_a_batch_worked_by_hand():
    # mean 2, var 1, eps 3: x_norm = -1/2, 1/2. dz = (1, 3): dbeta 4, dgamma 1; dx = 10/2 (dz - 2 - x_norm/2).
    x, dy, gamma, beta = np.asarray([[1.0], [3.0]]), np.asarray([[1.0], [3.0]]), np.asarray([10.0]), np.asarray([1.0])
    statistics = ops.moments(x).batch
    y = ops.normalize(x, statistics, gamma, beta, eps=3.0)
    found = ops.normalize_backward(dy, x, y, statistics, gamma, beta, eps=3.0)
    assert found.dx.tolist() == [[-3.75], [3.75]]
    assert (found.dgamma.tolist(), found.dbeta.tolist(), found.dadd) == ([1.0], [4.0], None)
    fixed = ops.normalize_backward(dy, x, y, statistics, gamma, beta, eps=3.0, batch_statistics=False)
    assert fixed.dx.tolist() == [[5.0], [15.0]]
    assert (fixed.dgamma.tolist(), fixed.dbeta.tolist()) == ([1.0], [4.0])
    bare = ops.normalize_backward(dy, x, y, statistics, None, None, dy, eps=3.0)
    assert bare.dx.tolist() == [[-0.375], [0.375]]
    assert (bare.dgamma, bare.dbeta) == (None, None)
    np.testing.assert_array_equal(bare.dadd, dy)
    assert bare.dadd is not dy


def test_float32_keeps_its_digits_at_every_mean_up_to_a_million(rng):
    for ratio in (0.0, 1.0, 1e2, 1e4, 1e6):
        for std in (1e-2, 1.0, 1e3):
            x = (std * (ratio + rng.standard_normal((64, 6)))).astype(np.float32)
            wide = x.astype(np.longdouble)
            exact = (wide - wide.mean(0)) / np.sqrt(wide.var(0) + np.longdouble(1e-5))
            y = ops.normalize(x, ops.moments(x).batch, None, None)
            assert np.all(np.abs(y - exact) <= 10 * U32 * np.abs(exact) + 10 * U32), (ratio, std)


@pytest.mark.parametrize("rows", [1, 2, 3, 7, 10, 63, 64, 65, 100, 1000, 4099])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("value", [0.1, 1e6 / 3, -7e-5, 0.0, 3e-40])
def test_a_constant_channel_gives_exactly_beta(dtype, rows, value):
    x = np.full((rows, 2), value, dtype)
    batch = ops.moments(x).batch
    np.testing.assert_array_equal(batch[1], x[0].astype(np.float64))
    gamma, beta = np.asarray([2.0, -1e3], dtype), np.asarray([0.3, -0.7], dtype)
    np.testing.assert_array_equal(ops.normalize(x, batch, gamma, beta), np.broadcast_to(beta, x.shape))
    np.testing.assert_array_equal(ops.normalize(x, batch, None, None), np.zeros_like(x))


def test_the_order_of_memory_and_strides_change_nothing(rng):
    x = rng.standard_normal((8, 6)).astype(np.float32)
    wide = np.repeat(x, 2, axis=1)[:, ::2]
    for other in (np.asfortranarray(x), wide, x[::-1].copy()[::-1]):
        np.testing.assert_allclose(ops.moments(other).batch, ops.moments(x).batch, rtol=1e-15, atol=1e-17)
        statistics = ops.moments(x).batch
        np.testing.assert_array_equal(
            ops.normalize(other, statistics, None, None), ops.normalize(x, statistics, None, None)
        )


def test_batch_normalization_has_the_arguments_of_tf_nn(rng):
    """tf.nn.batch_normalization(x, mean, variance, offset, scale, variance_epsilon): the offset before the scale."""
    x, mean = rng.standard_normal((5, 3)), rng.standard_normal(3)
    var, beta, gamma = rng.random(3), rng.standard_normal(3), rng.standard_normal(3)
    expected = gamma * (x - mean) / np.sqrt(var + 0.25) + beta
    np.testing.assert_allclose(ops.batch_normalization(x, mean, var, beta, gamma, 0.25), expected, rtol=1e-13)
    bare = ops.batch_normalization(x, mean, var, None, None, 0.25)
    np.testing.assert_allclose(bare, (x - mean) / np.sqrt(var + 0.25), rtol=1e-13)
    narrow = ops.batch_normalization(*(a.astype(np.float32) for a in (x, mean, var, beta, gamma)), 0.25)
    assert narrow.dtype == np.float32
    np.testing.assert_allclose(narrow, expected, rtol=1e-5, atol=1e-6)
    assert ops.batch_normalization(np.asarray([[3.0]]), *np.asarray([[1.0], [3.0], [5.0], [7.0]]), 1.0).tolist() == [
        [12]
    ]
