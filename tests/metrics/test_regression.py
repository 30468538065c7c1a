"""Mean absolute error and R2: hand-worked figures, large means, batches in any cut."""

from fractions import Fraction

import numpy as np
import pytest

from bnengine.errors import InputError
from bnengine.metrics import R2, MeanAbsoluteError

P, Y = np.array([2.0, 4.0, 6.0]), np.array([1.0, 4.0, 8.0])


def filled(metric, *batch):
    metric.update(*batch)
    return metric


def test_values_worked_by_hand():
    assert filled(MeanAbsoluteError(), P, Y).value() == 1.0
    two = filled(MeanAbsoluteError(), [[1.0, 2.0], [3.0, 4.0]], [[0.0, 2.0], [3.0, 1.0]], [1.0, 3.0])
    assert two.value() == (1 + 9) / 8
    # mean 13/3; spread 222/9; residual 1 + 0 + 4
    assert filled(R2(), P, Y).value() == float(1 - Fraction(5 * 9, 222))
    assert filled(R2(), np.stack([Y, P], axis=1), np.stack([Y, Y], axis=1)).value() == float(1 - Fraction(45, 222) / 2)
    # weights 1, 3: mean 3, spread 4 + 3 * 4/9
    assert filled(R2(), [1.0, 4.0], [0.0, 4.0], [1.0, 3.0]).value() == float(1 - Fraction(1, 12))
    # constant targets
    assert filled(R2(), [3.0, 3.0], [3.0, 3.0]).value() == 1
    assert filled(R2(), [3.0, 3.5], [3.0, 3.0]).value() == 0


def test_r2_loses_nothing_to_a_mean_far_above_the_spread(rng):
    y = 1e9 + rng.standard_normal(50)
    p, w = y + 0.1 * rng.standard_normal(50), rng.random(50)
    exact = [[Fraction(v) for v in a.tolist()] for a in (p, y, w)]
    total = sum(exact[2])
    mean = sum(v * t for _, t, v in zip(*exact, strict=True)) / total
    spread = sum(v * (t - mean) ** 2 for _, t, v in zip(*exact, strict=True))
    residual = sum(v * (t - o) ** 2 for o, t, v in zip(*exact, strict=True))
    assert filled(R2(), p, y, w).value() == pytest.approx(float(1 - residual / spread), rel=1e-15)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_nonfinite_output_makes_the_worst_value_for_good(bad):
    for metric, worst in ((MeanAbsoluteError(), np.inf), (R2(), -np.inf)):
        filled(filled(metric, [bad, 1.0], [0.0, 1.0]), P, Y)
        assert metric.value() == worst
        other = filled(type(metric)(), P, Y)
        other.merge(metric)
        assert other.value() == worst
        metric.reset()
        assert np.isfinite(filled(metric, P, Y).value())


@pytest.mark.parametrize("make", [MeanAbsoluteError, R2])
@pytest.mark.parametrize(
    ("outputs", "targets", "message"),
    [
        (P, [1.0], "need numbers of the same shape"),
        (P, [1.0, np.nan, 1.0], r"target of row 1 must .* got \[nan\]"),
        (P, [1.0, 1.0, -1e200], r"target of row 2 must .* got \[-1e\+200\]"),
        (P, ["a", "b", "c"], "targets are <U1"),
    ],
)
def test_arguments_that_do_not_fit_are_named(make, outputs, targets, message):
    with pytest.raises(InputError, match=message):
        make().update(outputs, targets)


def test_r2_refuses_batches_of_another_width():
    metric = filled(R2(), P, Y)
    with pytest.raises(InputError, match="2 outputs after batches of 1"):
        metric.update(np.ones((1, 2)), np.ones((1, 2)))
