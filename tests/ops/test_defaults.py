"""What is left out of a call means the same on the way there and on the way back."""

import numpy as np
import pytest

from bnengine.ops.pointwise import activate, derivative


@pytest.mark.parametrize("kind", ["relu", "leaky_relu", "sigmoid", "tanh"])
def test_value_and_derivative_have_the_same_defaults(kind):
    """Away from 0, a central difference of the value."""
    z, h = np.asarray([-2.0, -0.5, 0.5, 2.0]), 1e-6
    expected = (activate(z + h, kind) - activate(z - h, kind)) / (2 * h)
    np.testing.assert_allclose(derivative(np.ones(4), activate(z, kind), kind), expected, rtol=1e-8)


def test_a_leaky_relu_lets_a_hundredth_through():
    assert activate(np.asarray([-100.0]), "leaky_relu").tolist() == [-1.0]
    assert derivative(np.ones(1), np.asarray([-1.0]), "leaky_relu").tolist() == [0.01]
