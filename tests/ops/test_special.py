"""erf against the C library, its derivative against the formula in a longer type."""

import math

import numpy as np
import pytest

from bnengine.arrays.random import Stream
from bnengine.errors import InputError
from bnengine.ops.special import erf, erf_derivative


def host(x):
    """An array of any library for NumPy; CuPy's lie on a device."""
    return x.get() if hasattr(x, "get") else np.from_dlpack(x)


def points(n):
    """Both signs; the two formulas, their seam at 1, and every magnitude down to the subnormals."""
    stream = Stream(1, "erf")
    seam = 1.0 + np.arange(-n // 2, n // 2) * 2.0**-52
    near, far, tiny = stream.uniform(n), 1.0 + 5.0 * stream.uniform(n), 2.0 ** -(1074 * stream.uniform(n))
    x = np.concatenate([np.linspace(0.0, 6.5, n + 1)[1:], near, far, seam, tiny])
    return np.concatenate([x, -x])


@pytest.mark.parametrize(("dtype", "places"), [("float64", 2), ("float32", 0.501)])
def test_erf_errs_by_no_more_places(dtype, places):
    x = points(5000).astype(dtype)
    x = x[x != 0]
    y = erf(x)
    assert y.dtype == dtype
    assert np.max(np.abs(y - [math.erf(v) for v in x.tolist()]) / np.spacing(np.abs(y)).astype(float)) <= places


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_special_values_pass_through(xp, dtype):
    tiny = 1e-45 if dtype == "float32" else 5e-324
    x = [0.0, -0.0, math.inf, -math.inf, 3e38, -6.0, tiny, -tiny, math.nan]
    y = host(erf(xp.asarray(x, dtype=getattr(xp, dtype))))
    assert y.dtype == dtype
    np.testing.assert_array_equal(y, np.asarray([0.0, -0.0, 1, -1, 1, -1, tiny, -tiny, math.nan], dtype))
    assert np.signbit(y[:2]).tolist() == [False, True]
    slope = host(erf_derivative(xp.asarray([math.nan, 0.0, np.finfo(dtype).max, math.inf], dtype=getattr(xp, dtype))))
    np.testing.assert_array_equal(slope, np.asarray([math.nan, 2 / math.sqrt(math.pi), 0, 0], dtype))


def test_erf_is_odd_and_never_falls_or_exceeds_1():
    y = erf(np.linspace(0, 7, 100_001))
    np.testing.assert_array_equal(erf(-np.linspace(0, 7, 100_001)), -y)
    assert np.all(np.diff(y) >= 0)
    assert y.max() == erf(np.asarray(np.finfo(np.float64).max)) == 1


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("function", [erf, erf_derivative])
def test_every_library_agrees_with_numpy(xp, dtype, function):
    x = points(100).astype(dtype).reshape(4, -1)
    y = function(xp.asarray(x))
    assert tuple(y.shape) == x.shape
    # The libraries' exp may differ in the last bits of float64, which float32 then rounds away or turns into one.
    np.testing.assert_allclose(host(y), function(x), rtol=4 * np.finfo(dtype).eps, atol=0)


def test_the_derivative_keeps_its_bound():
    x = np.concatenate([np.linspace(-26, 26, 1041), Stream(2).uniform(500)]).astype(np.longdouble)
    exact = 2 / np.sqrt(4 * np.arctan(np.longdouble(1))) * np.exp(-x * x)
    assert np.all(np.abs(erf_derivative(x.astype(float)) / exact - 1) < 2 * (1 + x * x) * 2.0**-53)


@pytest.mark.parametrize("function", [erf, erf_derivative])
def test_only_real_floating_arrays_are_taken(function):
    for dtype in (np.int64, np.bool_, np.complex128):
        with pytest.raises(
            InputError, match=rf"^{function.__name__}: x must be float32 or float64, got {np.dtype(dtype)}"
        ):
            function(np.ones(2, dtype))
    assert function(np.zeros((0, 3))).shape == (0, 3)
