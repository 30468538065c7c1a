"""erf against its power series in 60 decimal digits and against the C library."""

import math
from decimal import Decimal, localcontext

import numpy as np
import pytest

from bnengine.arrays.random import Stream
from bnengine.errors import InputError
from bnengine.ops.special import erf, erf_derivative

PI = Decimal("3.14159265358979323846264338327950288419716939937510582097494459")


def host(x):
    """An array of any library for NumPy; CuPy's lie on a device."""
    return x.get() if hasattr(x, "get") else np.from_dlpack(x)


def exact_derivative(x):
    """2 / sqrt(pi) exp(-x^2), to about 55 digits."""
    with localcontext(prec=60):
        return 2 / PI.sqrt() * (-Decimal(x) * Decimal(x)).exp()


def exact_erf(x):
    """The sum of 2**k x^(2k+1) / (1 3 5 ... (2k+1)) times 2 / sqrt(pi) exp(-x^2): no term cancels another."""
    with localcontext(prec=60):
        term = total = Decimal(x)
        k = 0
        while abs(term) > abs(total) * Decimal("1e-58"):
            k += 1
            term = term * 2 * Decimal(x) * Decimal(x) / (2 * k + 1)
            total += term
        return exact_derivative(x) * total


def largest_error(values, points, exact):
    """In units of the last place of the value, whatever its dtype."""
    spacing = np.spacing(np.abs(values))
    pairs = zip(values.tolist(), points.tolist(), spacing.tolist(), strict=True)
    return max(float(abs(Decimal(v) - exact(p)) / Decimal(s)) for v, p, s in pairs)


def points(n):
    """Both signs; the two formulas, their seam at 1, and every magnitude down to the subnormals."""
    stream = Stream(1, "erf")
    x = np.concatenate(
        [
            np.linspace(0.0, 6.5, n + 1)[1:],
            stream.uniform(n),
            1.0 + 5.0 * stream.uniform(n),
            1.0 + np.arange(-n // 2, n // 2) * 2.0**-52,
            2.0 ** -(1074 * stream.uniform(n)),
        ]
    )
    return np.concatenate([x, -x])


def test_the_oracle_knows_the_published_values():
    """Abramowitz and Stegun, table 7.1: erf(0.5) = 0.5204998778, erf(1) = 0.8427007929, erf(2) = 0.9953222650."""
    for x, value in [(0.5, 0.5204998778), (1.0, 0.8427007929), (2.0, 0.9953222650)]:
        assert float(exact_erf(x)) == pytest.approx(value, abs=5e-11)


def test_erf_is_within_one_and_a_half_ulp_in_float64():
    x = points(200)
    assert largest_error(erf(x), x, exact_erf) < 1.5


def test_erf_in_float32_is_rounded_correctly_but_for_ties():
    x = points(200).astype(np.float32)
    x = x[x != 0]
    y = erf(x)
    assert y.dtype == np.float32
    assert largest_error(y, x, exact_erf) < 0.501


def test_erf_is_within_two_ulp_of_the_c_library_on_many_points():
    x = points(20_000)
    expected = np.asarray([math.erf(v) for v in x])
    assert np.max(np.abs(erf(x) - expected) / np.spacing(np.abs(expected))) <= 2


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_special_values_pass_through(xp, dtype):
    tiny = 1e-45 if dtype == "float32" else 5e-324
    x = [0.0, -0.0, math.inf, -math.inf, 3e38, -6.0, tiny, -tiny, math.nan]
    y = host(erf(xp.asarray(x, dtype=getattr(xp, dtype))))
    assert y.dtype == dtype
    np.testing.assert_array_equal(y, np.asarray([0.0, -0.0, 1, -1, 1, -1, tiny, -tiny, math.nan], dtype))
    assert np.signbit(y[:2]).tolist() == [False, True]


def test_the_largest_number_does_not_overflow_on_the_way():
    largest = np.finfo(np.float64).max
    np.testing.assert_array_equal(erf(np.asarray([largest, -largest])), [1, -1])
    np.testing.assert_array_equal(erf_derivative(np.asarray([largest, -largest, math.inf])), [0, 0, 0])


def test_erf_is_odd_and_never_falls_by_more_than_its_error():
    x = np.linspace(0, 7, 100_001)
    y = erf(x)
    np.testing.assert_array_equal(erf(-x), -y)
    assert np.all(np.diff(y) >= 0)
    assert y.max() == 1


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("function", [erf, erf_derivative])
def test_every_library_agrees_with_numpy(xp, dtype, function):
    x = points(500).astype(dtype).reshape(4, -1)
    y = function(xp.asarray(x))
    assert tuple(y.shape) == x.shape
    # The libraries' exp may differ in the last bits of float64, which float32 then rounds away or turns into one.
    np.testing.assert_allclose(host(y), function(x), rtol=4 * np.finfo(dtype).eps, atol=0)


def test_the_derivative_keeps_its_bound():
    x = np.concatenate([np.linspace(-26, 26, 1041), Stream(2).uniform(500)])
    y = erf_derivative(x)
    for value, point in zip(y.tolist(), x.tolist(), strict=True):
        exact = exact_derivative(point)
        assert abs(Decimal(value) / exact - 1) < 2 * (1 + Decimal(point) ** 2) * Decimal(2) ** -53


def test_the_derivative_is_the_slope_of_erf():
    x, h = np.linspace(-3, 3, 61), 1e-4
    slope = (erf(x + h) - erf(x - h)) / (2 * h)
    # Central differences: h^2 / 6 times the third derivative (at most 4 / sqrt(pi)), and erf's rounding over h.
    np.testing.assert_allclose(slope, erf_derivative(x), rtol=0, atol=h * h / 6 * 4 / math.sqrt(math.pi) + 2.0**-52 / h)


def test_the_derivative_passes_nan_on_and_keeps_the_dtype():
    y = erf_derivative(np.asarray([math.nan, 0.0], np.float32))
    assert y.dtype == np.float32
    np.testing.assert_array_equal(y, np.asarray([math.nan, 2 / math.sqrt(math.pi)], np.float32))


@pytest.mark.parametrize("function", [erf, erf_derivative])
@pytest.mark.parametrize("dtype", [np.int64, np.bool_, np.complex128])
def test_only_real_floating_arrays_are_taken(function, dtype):
    with pytest.raises(InputError, match=rf"^{function.__name__}: x is {np.dtype(dtype)}. Give float32 or float64."):
        function(np.ones(2, dtype))


def test_no_axis_and_no_element_are_shapes_too():
    assert erf(np.asarray(0.5)).shape == ()
    assert erf(np.zeros((0, 3))).shape == (0, 3)
