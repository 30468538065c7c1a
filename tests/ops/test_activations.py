"""Every activation against formulas worked by hand; the tables of activations against one another."""

import re
from pathlib import Path

import numpy as np
import pytest

from bnengine import ops
from bnengine.contracts.activations import SENSITIVITIES, sensitivity_of
from bnengine.ops.activations import ACTIVATIONS, activate, derivative
from tests.activations import LONG, ORACLES

POINTS = np.asarray([-30.0, -3.0, -1.0, -0.5, -1e-9, 0.0, 1e-9, 0.25, 1.0, 2.5, 30.0])
RULES = Path(__file__).parents[2] / "kernels" / "rules.h"


def test_every_table_has_the_same_activations():
    assert SENSITIVITIES.keys() == ORACLES.keys() == ACTIVATIONS.keys()
    rows = re.findall(r"^  ROW\((\w+), (\w+), ", RULES.read_text(encoding="utf-8"), re.MULTILINE)
    assert rows == [(kind, rule.reads) for kind, rule in ACTIVATIONS.items()]
    assert all((ORACLES[kind].of_y is None) == (rule.reads == "z") for kind, rule in ACTIVATIONS.items())


@pytest.mark.parametrize("kind", ACTIVATIONS)
def test_value_and_derivative_have_the_same_defaults(kind):
    """Away from 0, a central difference of the value."""
    z, h = np.asarray([-2.0, -0.5, 0.5, 2.0]), 1e-6
    expected = (activate(z + h, kind) - activate(z - h, kind)) / (2 * h)
    np.testing.assert_allclose(derivative(np.ones(4), activate(z, kind), kind, z=z), expected, rtol=1e-8)


@pytest.mark.parametrize("kind", ACTIVATIONS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_infinities_have_limits_and_zero_keeps_its_sign(kind, dtype):
    x = np.asarray([np.inf, -np.inf, np.nan, 0.0, -0.0], dtype)
    with np.errstate(invalid="ignore"):
        y = ops.activation(x, kind=kind)
    assert y.dtype == dtype
    np.testing.assert_array_equal(y[:3], np.asarray([*ORACLES[kind].limits, np.nan], dtype))
    at_zero = float(ORACLES[kind].value(LONG(0), 0.3))
    np.testing.assert_allclose(y[3:], [at_zero, at_zero], rtol=2.0**-24)
    if at_zero == 0:
        assert np.signbit(y[3:]).tolist() == [False, True]


@pytest.mark.parametrize("kind", ACTIVATIONS)
@pytest.mark.parametrize("slope", [0.0, 0.3, 1.0, 2.5])
def test_slopes_and_their_changes_stay_within_the_sensitivity(kind, slope):
    """Over a step of z, g' changes by at most `curvature` times the step, and by the kinks on the way."""
    z = np.linspace(-8, 8, 16001, dtype=LONG)
    sensitivity = sensitivity_of(kind, slope)
    g = ORACLES[kind].derivative(z, slope)
    assert np.max(np.abs(g)) <= sensitivity.steepest
    allowed = LONG(sensitivity.curvature) * np.diff(z) * (1 + 1e-9) + 1e-15
    for kink, jump in sensitivity.kinks.items():
        allowed += np.where((z[:-1] <= kink) & (kink <= z[1:]), jump, 0)
    assert np.all(np.abs(np.diff(g)) <= allowed)


@pytest.mark.parametrize("kind", ACTIVATIONS)
def test_the_largest_curvature_is_reached(kind):
    z = np.linspace(-8, 8, 16001, dtype=LONG)
    steps = np.abs(np.diff(ORACLES[kind].derivative(z, 0.3))) / np.diff(z)
    sensitivity = sensitivity_of(kind, 0.3)
    smooth = np.all([(z[1:] < kink) | (kink < z[:-1]) for kink in sensitivity.kinks], axis=0)
    assert np.max(steps[smooth]) == pytest.approx(sensitivity.curvature, rel=0.01)


def test_a_leaky_relu_lets_a_hundredth_through():
    assert activate(np.asarray([-100.0]), "leaky_relu").tolist() == [-1.0]
    assert derivative(np.ones(1), np.asarray([-1.0]), "leaky_relu").tolist() == [0.01]


def test_every_op_has_the_same_default_slope():
    x, one, statistics = np.asarray([[-2.0], [3.0]]), np.ones((1, 1)), np.asarray([[2.0], [0.0], [1.0]])
    y, dy, leaky = np.asarray([[-0.02], [3.0]]), np.ones((2, 1)), {"activation": "leaky_relu"}
    fixed = leaky | {"eps": 0.0, "batch_statistics": False}
    values = (
        ops.activation(x, kind="leaky_relu"),
        ops.affine(x, one, **leaky),
        ops.normalize(x, statistics, None, None, eps=0.0, **leaky),
        np.add(ops.batch_norm(x, None, np.full(1, 0.5), eps=0.0, **leaky).y, [[-0.015], [1.5]]),
    )
    assert all(np.allclose(value, y, rtol=1e-15) for value in values)
    gradients = (
        ops.activation_backward(dy, x, y, kind="leaky_relu"),
        ops.affine_backward(dy, x, one, y, **leaky).dx,
        ops.normalize_backward(dy, x, y, statistics, None, None, **fixed).dx,
    )
    assert all(gradient[:, 0].tolist() == [0.01, 1.0] for gradient in gradients)


def test_the_gradient_of_identity_is_a_new_array():
    dy = np.asarray([1.0, -2.0])
    assert not np.shares_memory(ops.activation_backward(dy, dy, dy, kind="identity"), dy)


def test_sums_over_rows_are_in_float64():
    """Row after row adds 1 to 2**24: in float32 each of them would be lost."""
    dy, one = np.ones((65, 1), np.float32), np.ones(1, np.float32)
    dy[0] = 2.0**24
    found = ops.normalize_backward(dy, dy / dy, dy, np.asarray([[65.0], [0.0], [1.0]]), one, one, eps=0.0)
    sums = ops.affine_backward(dy, dy, one[:, None], dy).db, found.dbeta, found.dgamma
    assert all(value.tolist() == [2.0**24 + 64] for value in sums)
