"""The logarithm against the C library's, the quantile function against the distribution it inverts."""

import math
import statistics

import numpy as np
import pytest

from bnengine.arrays.quantile import log, normal_quantile
from bnengine.arrays.random import Stream


def ulps(value, expected):
    """Distance in units of the last place of what is expected."""
    return np.abs(value - expected) / np.spacing(np.abs(expected))


def points(n):
    """Numbers in (0, 1), half evenly spread and half evenly spread in their logarithm."""
    stream = Stream(1, "points")
    return np.concatenate([stream.uniform(n // 2), 2.0 ** (-53 * stream.uniform(n // 2))])


def test_log_is_within_one_ulp_over_all_magnitudes():
    around_one = 1 + np.arange(1, 3000) * 2.0**-40
    x = [around_one, 2 - around_one, 2.0 ** np.linspace(-1074, 1023, 5000), np.geomspace(0.5, 2, 5000), points(50_000)]
    x = np.concatenate(x)
    x = x[x != 1]
    assert ulps(log(x), np.asarray([math.log(v) for v in x])).max() <= 1
    assert log(np.ones(1))[0] == 0


def test_the_quantile_agrees_with_the_standard_library():
    p = points(50_000)
    inverse = statistics.NormalDist().inv_cdf
    expected = np.asarray([inverse(v) for v in p])
    # Only the logarithm differs between the two, by at most 1 ulp.
    assert ulps(normal_quantile(p), expected).max() <= 8


def test_the_quantile_is_odd_and_rising():
    p = np.arange(1, 2**12) / 2**12
    z = normal_quantile(p)
    assert normal_quantile(np.asarray([0.975]))[0] == pytest.approx(1.959963984540054, rel=2.0**-50)
    np.testing.assert_array_equal(z, -z[::-1])
    assert np.all(np.diff(z) > 0)
    assert z[p == 0.5] == 0
