"""The logarithm against the C library's, the quantile function against the distribution it inverts."""

import math
import statistics

import numpy as np
import pytest

from bnengine.arrays import quantile
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


def test_the_coefficients_add_up_to_the_published_hash_sums():
    def hash_sum(pair):
        numbers = (*pair[0], *pair[1][1:])  # the 1 that leads each denominator is not counted
        return sum(float(f"{c:.17e}".split("e")[0]) for c in numbers)

    assert hash_sum(quantile._CENTER) == pytest.approx(55.8831928806149014439, abs=1e-13)
    assert hash_sum(quantile._TAIL) == pytest.approx(49.33206503301610289036, abs=1e-13)
    assert hash_sum(quantile._FAR_TAIL) == pytest.approx(47.52583317549289671629, abs=1e-13)


def test_the_quantile_agrees_with_the_standard_library():
    p = points(50_000)
    inverse = statistics.NormalDist().inv_cdf
    expected = np.asarray([inverse(v) for v in p])
    # Only the logarithm differs between the two, by at most 1 ulp.
    assert ulps(normal_quantile(p), expected).max() <= 8


def test_the_quantile_is_odd_and_rising():
    p = np.arange(1, 2**12) / 2**12
    z = normal_quantile(p)
    np.testing.assert_array_equal(z, -z[::-1])
    assert np.all(np.diff(z) > 0)
    assert z[p == 0.5] == 0


def test_known_values():
    """Tables of the normal distribution: 0.975 -> 1.959963984540054, 1e-10 -> -6.361340902404056."""
    np.testing.assert_allclose(
        normal_quantile(np.asarray([0.975, 1e-10, 0.0013498980316300933])),
        [1.959963984540054, -6.361340902404056, -3.0],
        rtol=4 * 2.0**-52,
    )
