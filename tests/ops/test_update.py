"""Optimizer rules step by step in plain Python numbers, the check_step, the counters, and steps that change nothing."""

import math
from itertools import product

import numpy as np
import pytest

from bnengine import ops
from bnengine.ops import REGISTRY
from bnengine.ops.update import RULES
from tests.optimizers import FORMULAS

YES, NO, ONE = np.asarray([True]), np.asarray([False]), np.ones(1)
START, GRADIENTS = (1.0, -2.0, 0.5), ((0.5, -1.0, 2.0), (0.25, 3.0, -1.0), (-4.0, 0.125, 1.0), (1.0, 1.0, 0.0))
RATES = (0.1, 0.05, 0.2, 0.01)


def counters(row=0):
    return np.asarray([row, row, 0, 0, 0])


def by_hand(formula, p, g, slots, row, decay, decoupled, settings):
    """A step of one parameter: the new one and its slots."""
    shrink = decay * p
    move, *new = formula(g + (0 if decoupled else shrink), *slots, *row[1:], **settings)
    return p - row[0] * (move + (shrink if decoupled else 0)), new


def variants():
    """(rule, slots there, settings): every flag set and not, every slot there and not, numbers other than usual."""
    for rule in RULES.values():
        numbers = {n: 0.01 if n == "eps" else 0.9 - 0.1 * i for i, n in enumerate(rule.settings)}
        choices = [(False, True) if type(v) is bool else (numbers[n],) for n, v in rule.settings.items()]
        there = [(True, False) if slot.on else (True,) for slot in rule.slots.values()]
        for values, slots in product(product(*choices), product(*there)):
            yield rule, slots, dict(zip(rule.settings, values, strict=True))


@pytest.mark.parametrize(("rule", "there", "settings"), list(variants()), ids=lambda v: getattr(v, "name", str(v)))
@pytest.mark.parametrize(("decay", "decoupled"), [(0.0, False), (0.3, False), (0.3, True)])
def test_four_steps_are_those_of_the_formula_number_by_number(rule, there, settings, decay, decoupled):
    op, decay_end = REGISTRY[rule.name], 2
    table = np.asarray(
        [[rate, *(0.3 + 0.2 * i + 0.1 * t for i in range(len(rule.scalars)))] for t, rate in enumerate(RATES)]
    )
    state = [np.asarray(START), *(np.zeros(3) if has else None for has in there)]
    expected = [(p, [0.0 if has else None for has in there]) for p in START]
    options = {"decay_end": decay_end, "weight_decay": decay, "decoupled": decoupled, **settings}
    for t, gradients in enumerate(GRADIENTS):
        state = list(op(state[0], np.asarray(gradients), *state[1:], table, counters(t), YES, ONE, **options))[:-1]
        for i, (p, slots) in enumerate(expected):
            own = decay if i < decay_end else 0.0
            p, new = by_hand(FORMULAS[rule.name], p, gradients[i], slots, table[t], own, decoupled, settings)
            expected[i] = p, [s if has else None for s, has in zip(new, there, strict=True)]
        for i, (p, slots) in enumerate(expected):
            for got, wanted in zip(state, (p, *slots), strict=True):
                assert (got is None) == (wanted is None)
                if got is not None:
                    np.testing.assert_allclose(got[i], float(wanted), rtol=1e-13)


def test_a_centered_variance_rounded_below_0_counts_as_0():
    mean = np.asarray([1.0])  # the mean's square is above the mean square: 0.81 + 0.1 - 1 < 0 without the floor
    state = ops.rmsprop(
        np.zeros(1), np.ones(1), np.asarray([0.9]), mean, None, np.ones((1, 1)), counters(), YES, ONE,
        decay_end=1, rho=0.9, eps=0.5,
    )  # fmt: skip
    np.testing.assert_allclose(state.parameters, [-2.0], rtol=1e-15)
    np.testing.assert_allclose(state.square, [0.91], rtol=1e-15)


def test_no_momentum_is_the_default_even_with_a_velocity():
    rest = np.ones((1, 1)), counters(), YES, ONE
    assert ops.sgd(ONE, ONE * 2, ONE * 7, *rest, decay_end=0).velocity.tolist() == [2.0]
    state = ops.rmsprop(ONE, ONE, ONE, None, ONE * 7, *rest, decay_end=0)
    np.testing.assert_allclose(state.velocity, [1 / (1 + 1e-8)], rtol=1e-15)


def test_the_defaults_of_rmsprop_are_rho_99_and_eps_1e_8_outside():
    state = ops.rmsprop(
        np.zeros(1), np.ones(1), np.zeros(1), None, None, np.ones((1, 1)), counters(), YES, ONE, decay_end=0
    )
    np.testing.assert_allclose(state.square, [0.01], rtol=1e-14)
    assert state.parameters[0] == pytest.approx(-1 / (0.1 + 1e-8), rel=1e-14)
    still = ops.rmsprop(
        np.zeros(1), ONE * 1e-8, ONE * 0, None, None, np.ones((1, 1)), counters(), YES, ONE, decay_end=0
    )
    assert still.parameters[0] == pytest.approx(-1e-8 / (1e-9 + 1e-8), rel=1e-13)


def test_the_first_step_of_adam_is_the_learning_rate():
    """Kingma and Ba (2015), section 2.1; with the defaults 0.9, 0.999 and 1e-8."""
    g = np.asarray([3.0, -1e-3])
    table = np.asarray([[0.001, 0.1, 0.001]])
    state = ops.adam(np.zeros(2), g, np.zeros(2), np.zeros(2), None, table, counters(), YES, ONE, decay_end=2)
    np.testing.assert_allclose(state.parameters, -0.001 * g / (np.abs(g) + 1e-8), rtol=1e-12)
    np.testing.assert_allclose(state.m, 0.1 * g, rtol=1e-13)
    np.testing.assert_allclose(state.v, 0.001 * g * g, rtol=1e-12)
    small = ops.adam(ONE, ONE * 1e-8, ONE * 0, ONE * 0, None, np.ones((1, 3)), counters(), YES, ONE, decay_end=0)
    np.testing.assert_allclose(small.parameters, [1 - 1e-9 / (1e-8 * math.sqrt(0.001) + 1e-8)], rtol=1e-13)


def test_the_row_chooses_the_learning_rate():
    table = np.asarray([[1.0], [10.0], [100.0]])
    found = [
        ops.sgd(np.zeros(1), ONE, None, table, np.asarray([0, r, 9, 9, 9]), YES, ONE, decay_end=0) for r in range(4)
    ]
    assert [s.parameters[0] for s in found] == [-1, -10, -100, -100]


# -- check_step --------------------------------------------------------------------------------------------------------

G, P = np.asarray([3.0, 0.0, -4.0]), np.zeros((1, 3, 2))


def test_a_finite_step_is_ok_and_has_its_norm():
    verdict = ops.check_step(ONE, G, P)
    assert (verdict.ok.tolist(), verdict.norm.tolist(), verdict.factor.tolist()) == ([True], [5.0], [1.0])
    assert verdict.norm.dtype == np.float64


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_anything_that_is_not_finite_spoils_the_step(bad, dtype):
    loss, g, p = ONE.astype(dtype), G.astype(dtype), P.copy()
    assert ops.check_step(np.full(1, bad, dtype), g, p).ok.tolist() == [False]
    for i in range(3):
        spoiled = g.copy()
        spoiled[i] = bad
        verdict = ops.check_step(loss, spoiled, p, clip=1.0)
        assert verdict.ok.tolist() == [False]
        assert not np.isfinite(verdict.norm).any()
        for j in range(2):
            statistics = p.copy()
            statistics[0, i, j] = bad
            assert ops.check_step(loss, g, statistics).ok.tolist() == [False]


@pytest.mark.parametrize(
    ("clip", "factor"), [(None, 1.0), (2.5, 0.5), (5.0, 1.0), (math.nextafter(5, 9), 1.0), (10.0, 1.0), (1e300, 1.0)]
)
def test_clipping_begins_above_the_norm(clip, factor):
    assert ops.check_step(ONE, G, P, clip=clip).factor.tolist() == [factor]


def test_clipping_just_below_the_norm():
    clip = math.nextafter(5, 0)
    assert ops.check_step(ONE, G, P, clip=clip).factor.tolist() == [clip / 5]


def test_no_gradient_at_all_is_not_clipped():
    verdict = ops.check_step(ONE, np.zeros(3), P, clip=1.0)
    assert (verdict.ok.tolist(), verdict.norm.tolist(), verdict.factor.tolist()) == ([True], [0.0], [1.0])


@pytest.mark.parametrize("scale", [1e30, 1e-30])
def test_squares_beyond_float32_still_have_their_norm(scale):
    g = np.asarray([3 * scale, 4 * scale], np.float32)
    clip = min(scale, 1e10)
    verdict = ops.check_step(ONE.astype(np.float32), g, P, clip=clip)
    assert verdict.ok.tolist() == [True]
    np.testing.assert_allclose(verdict.norm, [5 * scale], rtol=1e-7)
    assert verdict.factor.dtype == np.float32
    np.testing.assert_allclose(verdict.factor, [clip / (5 * scale)], rtol=2e-7)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_squares_that_would_overflow_a_state_spoil_the_step(dtype):
    """Adam and RMSprop would keep an infinite square for good; a clip below the largest root prevents that."""
    root = math.sqrt(np.finfo(dtype).max)
    below, above = (np.asarray([share * root], dtype) for share in (0.999, 1.001))
    with np.errstate(over="ignore"):
        assert ops.check_step(ONE.astype(dtype), below, P).ok.tolist() == [True]
        assert ops.check_step(ONE.astype(dtype), above, P).ok.tolist() == [False]
        assert ops.check_step(ONE.astype(dtype), above, P, clip=2 * root).ok.tolist() == [False]
        if dtype is np.float32:
            assert ops.check_step(ONE.astype(dtype), above, P, clip=root).ok.tolist() == [True]
            assert ops.check_step(ONE.astype(dtype), above, P, clip=1.0).ok.tolist() == [True]


def test_a_norm_whose_square_just_fits_is_usable():
    root = math.sqrt(np.finfo(np.float64).max)
    assert math.isfinite(root * root)
    verdict = ops.check_step(np.ones(1), np.asarray([root]), np.zeros((1, 3, 2)))
    assert (verdict.norm.tolist(), verdict.ok.tolist()) == ([root], [True])
    with np.errstate(over="ignore"):
        above = ops.check_step(np.ones(1), np.asarray([math.nextafter(root, math.inf)]), np.zeros((1, 3, 2)))
    assert above.ok.tolist() == [False]


# -- counters, sums, averages -----------------------------------------------------------------------------------------


def test_an_epochs_sums_grow_where_the_step_was_ok():
    sums = np.asarray([1.0, 2.0, 3.0, 4.0])
    given = np.asarray([0.5]), np.asarray([8.0]), np.asarray([5.0])
    assert ops.add_epoch_sums(sums, *given, YES, rows=9).tolist() == [5.0, 10.0, 8.0, 13.0]
    with np.errstate(invalid="ignore"):
        skipped = ops.add_epoch_sums(sums, np.asarray([np.nan]), *given[1:], NO, rows=9)
    assert skipped.tobytes() == sums.tobytes()


def test_an_epochs_sums_do_not_round_in_float32():
    sums = np.asarray([2.0**24, 2.0**24, 2.0**24, 2.0**24])
    one = np.ones(1, np.float32)
    assert ops.add_epoch_sums(sums, one, one, np.ones(1), YES, rows=1).tolist() == [2.0**24 + 1] * 4


def test_an_average_of_a_skipped_step_keeps_every_bit():
    old = np.asarray([0.1, -0.0, 1e-310])
    assert ops.average(old, np.full(3, np.nan), NO, decay=0.9).tobytes() == old.tobytes()
