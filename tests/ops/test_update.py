"""Defaults of optimizer rules, the choice of a row, check_step at its limits, and steps that change nothing."""

import math

import numpy as np
import pytest

from bnengine import ops

YES, NO, ONE = np.asarray([True]), np.asarray([False]), np.ones(1)
REST = np.ones((1, 1)), np.zeros(5, np.int64), YES, ONE


def test_the_defaults_of_the_rules():
    assert ops.sgd(ONE, ONE * 2, ONE * 7, *REST, decay_end=0).velocity.tolist() == [2.0]
    state = ops.rmsprop(ONE, ONE, ONE * 0, None, ONE * 7, *REST, decay_end=0)
    np.testing.assert_allclose([*state.square, *state.velocity], [0.01, 1 / (0.1 + 1e-8)], rtol=1e-13)
    small = ops.rmsprop(ONE * 0, ONE * 1e-8, ONE * 0, None, None, *REST, decay_end=0)
    np.testing.assert_allclose(small.parameters, [-1e-8 / (1e-9 + 1e-8)], rtol=1e-13)
    for g in (3.0, 1e-8):  # Kingma and Ba (2015), section 2.1: the first step is the learning rate
        rest = np.asarray([[0.001, 0.1, 0.001]]), *REST[1:]
        first = ops.adam(ONE * 0, ONE * g, ONE * 0, ONE * 0, None, *rest, decay_end=1)
        np.testing.assert_allclose([*first.m, *first.v], [0.1 * g, 0.001 * g * g], rtol=1e-12)
        np.testing.assert_allclose(first.parameters, [-0.001 * g / (g + 1e-8)], rtol=1e-12)


def test_a_centered_variance_rounded_below_0_counts_as_0():
    """The mean's square is above the mean square: 0.81 + 0.1 - 1 < 0 without the floor."""
    state = ops.rmsprop(ONE * 0, ONE, ONE * 0.9, ONE, None, *REST, decay_end=1, rho=0.9, eps=0.5)
    np.testing.assert_allclose([*state.parameters, *state.square], [-2.0, 0.91], rtol=1e-15)


def test_the_row_chooses_the_learning_rate():
    table, rows = np.asarray([[1.0], [10.0], [100.0]]), [np.asarray([0, r, 9, 9, 9]) for r in range(4)]
    found = [ops.sgd(ONE * 0, ONE, None, table, row, YES, ONE, decay_end=0) for row in rows]
    assert [s.parameters[0] for s in found] == [-1, -10, -100, -100]


G, P = np.asarray([3.0, 0.0, -4.0]), np.zeros((1, 3, 2))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_anything_that_is_not_finite_spoils_the_step(bad, dtype):
    loss, g = ONE.astype(dtype), G.astype(dtype)
    assert ops.check_step(loss, g, P).ok.tolist() == [True]
    assert ops.check_step(loss * bad, g, P).ok.tolist() == [False]
    for i in range(3):
        spoiled, statistics = g.copy(), P.copy()
        spoiled[i] = statistics[0, i, 1] = bad
        verdict = ops.check_step(loss, spoiled, P, clip=1.0)
        assert (verdict.ok.tolist(), np.isfinite(verdict.norm).tolist()) == ([False], [False])
        assert ops.check_step(loss, g, statistics).ok.tolist() == [False]


def test_clipping_begins_above_the_norm():
    below, above = math.nextafter(5, 0), math.nextafter(5, 9)
    for clip, factor in {None: 1.0, 2.5: 0.5, below: below / 5, 5.0: 1.0, above: 1.0, 1e300: 1.0}.items():
        verdict = ops.check_step(ONE, G, P, clip=clip)
        assert (verdict.norm.tolist(), verdict.factor.tolist(), verdict.norm.dtype) == ([5.0], [factor], np.float64)
    still = ops.check_step(ONE, G * 0, P, clip=1.0)
    assert (still.ok.tolist(), still.norm.tolist(), still.factor.tolist()) == ([True], [0.0], [1.0])


@pytest.mark.parametrize("scale", [1e30, 1e-30])
def test_squares_beyond_float32_still_have_their_norm(scale):
    clip, g = min(scale, 1e10), np.asarray([3 * scale, 4 * scale], np.float32)
    verdict = ops.check_step(ONE.astype(np.float32), g, P, clip=clip)
    assert (verdict.ok.tolist(), verdict.factor.dtype) == ([True], np.float32)
    np.testing.assert_allclose([*verdict.norm, *verdict.factor], [5 * scale, clip / (5 * scale)], rtol=2e-7)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_squares_that_would_overflow_a_state_spoil_the_step(dtype):
    """Adam and RMSprop would keep an infinite square for good; a clip below the largest root prevents that."""
    root = math.sqrt(np.finfo(dtype).max)
    usable = {(0.999, None): True, (1.001, None): False, (1.001, 2 * root): False}
    usable |= {(1.001, root): True, (1.001, 1.0): True} if dtype is np.float32 else {}
    usable |= {(1.0, None): True, (1 + 2.0**-52, None): False} if dtype is np.float64 else {}
    for (share, clip), ok in usable.items():
        with np.errstate(over="ignore"):
            verdict = ops.check_step(ONE.astype(dtype), np.asarray([share * root], dtype), P, clip=clip)
        assert verdict.ok.tolist() == [ok], (share, clip)


def test_an_epochs_sums_are_in_float64_and_count_only_steps_that_were_ok():
    sums, one = np.asarray([2.0**24, 2.0**24, 3.0, 4.0]), np.ones(1, np.float32)
    assert ops.add_epoch_sums(sums, one, one, ONE, YES, rows=9).tolist() == [2.0**24 + 1, 2.0**24 + 1, 4.0, 13.0]
    with np.errstate(invalid="ignore"):
        skipped = ops.add_epoch_sums(sums, one * np.nan, one, ONE, NO, rows=9)
    assert skipped.tobytes() == sums.tobytes()
    old = np.asarray([0.1, -0.0, 1e-310])
    assert ops.average(old, np.full(3, np.nan), NO, decay=0.9).tobytes() == old.tobytes()
