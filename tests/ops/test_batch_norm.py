"""Batch normalization on inputs that cancel, vanish, overflow or are missing."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bnengine import ops

U64 = 2.0**-53
YES, NO = np.asarray([True]), np.asarray([False])


def column(*values):
    """Statistics of one channel: count, mean, biased variance."""
    return np.asarray(values, np.float64).reshape(3, 1)


# -- moments ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan])
@pytest.mark.parametrize("row", [0, 6])
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


@pytest.mark.parametrize("decay", [0.9, 0.0, -1.0])
def test_a_skipped_step_and_a_proposal_of_count_0_leave_every_bit(decay):
    running, rule = column(3, 0.1, 0.7), (np.asarray([decay]), YES)
    for ok, count in ((NO, 4), (YES, 0)):
        for mean, var in ((1, 3), (np.nan, np.inf)):
            with np.errstate(invalid="ignore"):
                kept = ops.commit(running, column(count, mean, var), ok, *rule)
            assert kept.tobytes() == running.tobytes()


# -- normalize --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("value", [0.1, 1e6 / 3, -7e-5, 0.0, 3e-40])
def test_a_constant_channel_gives_exactly_beta(dtype, value):
    gamma, beta = np.asarray([2.0, -1e3], dtype), np.asarray([0.3, -0.7], dtype)
    for rows in (1, 2, 3, 7, 10, 63, 64, 65, 100, 1000, 4099):
        x = np.full((rows, 2), value, dtype)
        batch = ops.moments(x).batch
        np.testing.assert_array_equal(batch[1], x[0].astype(np.float64))
        np.testing.assert_array_equal(ops.normalize(x, batch, gamma, beta), np.broadcast_to(beta, x.shape))
        np.testing.assert_array_equal(ops.normalize(x, batch, None, None), np.zeros_like(x))


def test_batch_normalization_has_the_arguments_of_tf_nn():
    """tf.nn.batch_normalization(x, mean, variance, offset, scale, variance_epsilon): the offset before the scale."""
    given = np.asarray([[3.0]]), *np.asarray([[1.0], [3.0], [5.0], [7.0]])
    assert ops.batch_normalization(*given, 1.0).tolist() == [[12]]
    assert ops.batch_normalization(*given[:3], None, None, 1.0).tolist() == [[1]]
    assert ops.batch_normalization(*(a.astype(np.float32) for a in given), 1.0).dtype == np.float32
