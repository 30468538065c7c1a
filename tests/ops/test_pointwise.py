"""Activations, sums and affine maps against values worked by hand."""

import math

import numpy as np
import pytest

from bnengine import ops
from bnengine.errors import InputError
from bnengine.ops.activations import ACTIVATIONS


def test_the_slope_of_leaky_relu_is_a_hundredth_unless_told():
    x = np.asarray([-2.0, 3.0])
    y = ops.activation(x, kind="leaky_relu")
    assert y.tolist() == [-0.02, 3.0]
    assert ops.activation_backward(np.ones(2), x, y, kind="leaky_relu").tolist() == [0.01, 1.0]
    assert ops.affine(x[:, None], np.ones((1, 1)), activation="leaky_relu")[:, 0].tolist() == [-0.02, 3.0]
    found = ops.affine_backward(np.ones((2, 1)), x[:, None], np.ones((1, 1)), y[:, None], activation="leaky_relu")
    assert found.dx[:, 0].tolist() == [0.01, 1.0]
    statistics = np.asarray([[2.0], [0.0], [1.0]])
    out = ops.normalize(x[:, None], statistics, None, None, activation="leaky_relu", eps=0.0)
    assert out[:, 0].tolist() == [-0.02, 3.0]
    back = ops.normalize_backward(
        np.ones((2, 1)),
        x[:, None],
        out,
        statistics,
        None,
        None,
        activation="leaky_relu",
        eps=0.0,
        batch_statistics=False,
    )
    assert back.dx[:, 0].tolist() == [0.01, 1.0]


def test_sigmoid_keeps_the_digits_of_its_small_side():
    x = np.asarray([-80.0, -700.0])
    np.testing.assert_allclose(ops.activation(x, kind="sigmoid"), np.exp(x), rtol=1e-15)


def test_the_gradient_of_identity_is_a_new_array():
    dy = np.asarray([1.0, -2.0])
    dx = ops.activation_backward(dy, dy, dy, kind="identity")
    np.testing.assert_array_equal(dx, dy)
    assert not np.shares_memory(dx, dy)


def test_relu_lets_no_gradient_through_where_its_output_is_0():
    x, dy = np.asarray([-0.0, 0.0, 1e-300]), np.ones(3)
    y = ops.activation(x, kind="relu")
    assert ops.activation_backward(dy, x, y, kind="relu").tolist() == [0, 0, 1]


def test_bias_beta_and_gamma_gradients_sum_in_float64():
    """Row after row adds 1 to 2**24: in float32 each of them would be lost."""
    dy = np.ones((65, 1), np.float32)
    dy[0] = 2.0**24
    assert ops.affine_backward(dy, dy, np.ones((1, 1), np.float32), dy).db.tolist() == [2.0**24 + 64]
    statistics = np.asarray([[65.0], [0.0], [1.0]])
    ones = np.ones_like(dy)
    one = np.ones(1, np.float32)
    found = ops.normalize_backward(dy, ones, ones, statistics, one, one, eps=0.0)
    assert (found.dbeta.tolist(), found.dgamma.tolist()) == ([2.0**24 + 64], [2.0**24 + 64])


# -- errors -----------------------------------------------------------------------------------------------------------

X, W = np.zeros((4, 3)), np.zeros((3, 2))
FORMS = "x (..., inputs) and W (inputs, outputs)."
Y = np.zeros((4, 2))
*_FIRST, _LAST = map(repr, ACTIVATIONS)
CHOICES = f"{', '.join(_FIRST)} or {_LAST}"


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: ops.activation(X, kind="Relu"), f"activation: kind must be {CHOICES}, got 'Relu'."),
        (
            lambda: ops.activation_backward(X, X, X, kind=""),
            f"activation_backward: kind must be {CHOICES}, got ''.",
        ),
        (lambda: ops.affine(X, W, activation="swish"), f"affine: activation must be {CHOICES}, got 'swish'."),
        (
            lambda: ops.affine_backward(Y, X, W, Y, activation="swish"),
            f"affine_backward: activation must be {CHOICES}, got 'swish'.",
        ),
        (
            lambda: ops.activation(X, kind="leaky_relu", slope=math.inf),
            "activation: slope must be a finite number of at least 0, got inf. None takes the default.",
        ),
        (
            lambda: ops.affine_backward(Y, X, W, Y, slope=-1.0),
            "affine_backward: slope must be a finite number of at least 0, got -1.0. None takes the default.",
        ),
        (lambda: ops.activation(X > 0, kind="relu"), "activation: x is bool. Give float32 or float64."),
        (
            lambda: ops.activation_backward(X, X, X[0], kind="relu"),
            "activation_backward: dy (4, 3), x (4, 3), y (3,) must be of one shape.",
        ),
        (
            lambda: ops.activation_backward(X, X, X.astype(np.float32), kind="relu"),
            "activation_backward: y is float32 and dy is float64. Bring both to one dtype.",
        ),
        (lambda: ops.total(X, W), "total: a (4, 3), b (3, 2) must be of one shape."),
        (lambda: ops.total(X, X.astype(np.int64)), "total: b is int64. Give float32 or float64."),
        (lambda: ops.affine(X, W[:2]), "affine: x (4, 3) and W (2, 2) do not fit. Give " + FORMS),
        (lambda: ops.affine(X[0], W), "affine: x (3,) and W (3, 2) do not fit. Give " + FORMS),
        (lambda: ops.affine(X, W[:, 0]), "affine: x (4, 3) and W (3,) do not fit. Give " + FORMS),
        (lambda: ops.affine(X, W, np.zeros(3)), "affine: b must have shape (2,) for W (3, 2), got (3,)."),
        (
            lambda: ops.affine(X, W.astype(np.float32)),
            "affine: W is float32 and x is float64. Bring both to one dtype.",
        ),
        (lambda: ops.affine(X.astype(np.int32), W), "affine: x is int32. Give float32 or float64."),
        (
            lambda: ops.affine_backward(Y, X, W, Y, activation="gelu"),
            "affine_backward: the derivative of gelu reads z, got y. Apply gelu as an op after affine.",
        ),
        (lambda: ops.affine_backward(Y, X, W, Y[:1]), "affine_backward: dy (4, 2), y (1, 2) must be of one shape."),
        (
            lambda: ops.affine_backward(X, X, W, X),
            "affine_backward: dy (4, 3), x (4, 3) and W (3, 2) do not fit. Give dy (..., outputs), " + FORMS,
        ),
        (
            lambda: ops.affine_backward(Y, Y, W, Y),
            "affine_backward: dy (4, 2), x (4, 2) and W (3, 2) do not fit. Give dy (..., outputs), " + FORMS,
        ),
        (
            lambda: ops.affine_backward(Y, X, W.astype(np.float32), Y),
            "affine_backward: W is float32 and dy is float64. Bring both to one dtype.",
        ),
    ],
)
def test_what_cannot_be_used_is_an_error_that_echoes_it(call, text):
    with pytest.raises(InputError) as error:
        call()
    assert str(error.value) == text


def test_slope_0_is_allowed():
    assert ops.activation(np.asarray([-1.0, 1.0]), kind="leaky_relu", slope=0.0).tolist() == [0, 1]
