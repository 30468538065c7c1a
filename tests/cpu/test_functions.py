"""exp, log, log1p, tanh and erf of kernels/cpu: the error in units in the last place, and the ends of their domains.

`BNENGINE_FULL=1` goes over all 2^32 floats and holds functions.json to what it finds; `python -m tests.cpu.functions`
writes that file.
"""

import os

import numpy as np
import pytest

from tests.cpu.coefficients import table
from tests.cpu.functions import NAMES, RESULTS, Functions, recorded, sweep
from tests.support import ROOT

LIMIT = 2.0  # units in the last place
each_set = pytest.mark.parametrize("isa", ["v3", "v4"])
each_function = pytest.mark.parametrize("name", NAMES)
full = pytest.mark.skipif(os.environ.get("BNENGINE_FULL") != "1", reason="goes over all floats only if BNENGINE_FULL=1")

SPECIAL = {  # of both types: argument, result
    "exponential": [(0, 1), (-0.0, 1), (np.inf, np.inf), (-np.inf, 0), (1e5, np.inf), (-1e5, 0)],
    "logarithm": [(1, 0), (0, -np.inf), (-0.0, -np.inf), (np.inf, np.inf), (-1, np.nan), (-np.inf, np.nan)],
    "log_of_one_plus": [(0, 0), (-0.0, -0.0), (-1, -np.inf), (np.inf, np.inf), (-2, np.nan), (-np.inf, np.nan)],
    "hyperbolic_tangent": [(0, 0), (-0.0, -0.0), (np.inf, 1), (-np.inf, -1), (300, 1), (-300, -1)],
    "error_function": [(0, 0), (-0.0, -0.0), (np.inf, 1), (-np.inf, -1), (300, 1), (-300, -1)],
}


def arguments(dtype, count):
    """Numbers of all sizes, and as many where the functions do something."""
    rng = np.random.default_rng(3)
    unsigned = np.uint32 if dtype == np.float32 else np.uint64
    everywhere = rng.integers(0, np.iinfo(unsigned).max, count // 2, unsigned, endpoint=True).view(dtype)
    sizes = np.exp2(rng.uniform(-30, 10, count - count // 2))
    return np.concatenate([everywhere, (sizes * rng.choice([-1, 1], sizes.size)).astype(dtype)])


@each_set
@each_function
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_million_numbers_are_within_two_ulps(isa, name, dtype):
    x = arguments(dtype, 1_000_000)
    functions = Functions(isa)
    found = functions.measured(name, x, functions(name, x))
    assert found.wrong == 0, float(found.at).hex()
    assert 0.4 < found.worst <= LIMIT, float(found.at).hex()


@each_set
@each_function
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_ends_of_the_domain_are_exact(isa, name, dtype):
    for x, expected in (*SPECIAL[name], (np.nan, np.nan)):
        (y,) = Functions(isa)(name, np.array([x], dtype))
        np.testing.assert_equal(y, dtype(expected), err_msg=f"{name}({x})")
        assert np.isnan(expected) or np.signbit(y) == np.signbit(expected), (x, y)


@each_set
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_subnormal_numbers_are_numbers(isa, dtype):
    info = np.finfo(dtype)
    tiny = np.array([info.smallest_subnormal, 5 * info.smallest_subnormal, info.tiny / 2], dtype)
    functions = Functions(isa)
    for name in ("log_of_one_plus", "hyperbolic_tangent"):
        assert (functions(name, tiny) == tiny).all()
        assert (functions(name, -tiny) == -tiny).all()
    # erf(x) = 2 / sqrt(pi) x; exp inverts log, within the rounding of a logarithm of this size
    assert (np.abs(functions("error_function", tiny) - tiny * 1.1283791670955126) <= info.smallest_subnormal).all()
    back = functions("exponential", functions("logarithm", tiny))
    assert (np.abs(back - tiny) <= tiny * 1000 * info.eps + info.smallest_subnormal).all()


@each_function
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_avx2_avx512_and_a_number_alone_give_the_same_bits(name, dtype):
    x = arguments(dtype, 200_003)
    narrow, wide = Functions("v3")(name, x), Functions("v4")(name, x)
    numbers = ~np.isnan(narrow)
    assert (numbers == ~np.isnan(wide)).all()
    assert narrow[numbers].tobytes() == wide[numbers].tobytes()
    for isa in ("v3", "v4"):
        alone = np.concatenate([Functions(isa)(name, x[i : i + 1]) for i in range(300)])
        np.testing.assert_array_equal(alone, wide[:300])


def test_functions_call_no_library_and_are_vectorized():
    for isa in ("v3", "v4"):
        calls = Functions.code_of(isa)
        for name in NAMES:
            for kind in ("float", "double"):
                body = calls[f"{name}_{kind}"]
                assert "call" not in body, (isa, name, kind)
                assert ("ymm" if isa == "v3" else "zmm") in body, (isa, name, kind)


@pytest.mark.slow
def test_the_polynomials_are_those_that_are_derived(require):
    require("mpmath")
    text = (ROOT / "kernels" / "cpu" / "functions.h").read_text(encoding="utf-8")
    for title, coefficients, error in table():
        for c in coefficients:
            assert repr(c) + ("f" if title.startswith("float") else "") in text, title
        assert f"2^{error:.1f}" in text, title


def test_what_is_published_is_within_the_limit():
    found = recorded()
    assert sorted(found) == sorted(NAMES)
    for name, row in found.items():
        assert row["wrong"] == 0, name
        assert 0.5 <= row["worst"] <= LIMIT, name


@full
@pytest.mark.slow
@each_function
def test_all_floats_are_as_near_as_is_published(name):
    row = recorded()[name]
    assert sweep("v4", name, measured=True) == row, f"python -m tests.cpu.functions writes {RESULTS.name} anew"
    assert sweep("v3", name, measured=False)["bits"] == row["bits"]
