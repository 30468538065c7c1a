"""Exact sums against Python's fractions."""

from fractions import Fraction

import numpy as np
import pytest

from bnengine.metrics.exact import ExactSum, product, rounded


def test_a_sum_equals_the_sum_of_fractions_over_all_exponents(rng):
    values = np.ldexp(rng.standard_normal(500), rng.integers(-1060, 1000, 500))
    total = ExactSum()
    total.add(values)
    assert total.fraction() == sum(Fraction(v) for v in values.tolist())


@pytest.mark.parametrize("cuts", [[], [1], [3, 3, 90]])
def test_a_sum_does_not_depend_on_the_grouping(rng, cuts):
    values = rng.standard_normal((100, 2)) * 1e10
    whole, parts = ExactSum(), ExactSum()
    whole.add(values)
    for part in reversed(np.split(values, cuts)):
        piece = ExactSum()
        piece.add(part)
        parts.merge(piece)
    assert parts.fraction() == whole.fraction()


def test_a_fraction_beyond_the_largest_number_becomes_infinite():
    assert rounded(Fraction(10) ** 400) == np.inf
    assert rounded(-(Fraction(10) ** 400)) == -np.inf
    assert rounded(Fraction(1, 3)) == 1 / 3


def test_a_product_in_two_parts_is_exact(rng):
    a, b = (np.ldexp(rng.standard_normal(200), rng.integers(-200, 200, 200)) for _ in range(2))
    high, low = product(a, b)
    for x, y, h, part in zip(a.tolist(), b.tolist(), high.tolist(), low.tolist(), strict=True):
        assert Fraction(h) + Fraction(part) == Fraction(x) * Fraction(y)
