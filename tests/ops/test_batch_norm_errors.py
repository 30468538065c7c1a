"""What the ops of batch normalization refuse, and in which words."""

import math

import numpy as np
import pytest

from bnengine import ops
from bnengine.errors import InputError
from bnengine.ops.activations import ACTIVATIONS

YES = np.asarray([True])


@pytest.mark.parametrize("shape", [(), (3,), (0, 3), (3, 0), (2, 0, 3)])
def test_moments_of_nothing_are_an_error(shape):
    with pytest.raises(InputError) as error:
        ops.moments(np.zeros(shape))
    text = f"moments: shape {shape} has no rows of channels. Give (rows, channels), both at least 1."
    assert str(error.value) == text


X, S, V = np.zeros((4, 3)), np.zeros((3, 3)), np.ones(3)


@pytest.mark.parametrize(
    ("changes", "options", "text"),
    [
        ({"statistics": np.zeros((3, 4))}, {}, "statistics must have shape (3, 3) for x (4, 3), got (3, 4)."),
        ({"statistics": np.zeros((2, 3))}, {}, "statistics must have shape (3, 3) for x (4, 3), got (2, 3)."),
        ({"statistics": S.astype(np.float32)}, {}, "statistics must be float64 for every dtype of x, got float32."),
        ({"gamma": np.ones(4)}, {}, "gamma must have shape (3,) for x (4, 3), got (4,)."),
        ({"beta": np.ones((1, 3))}, {}, "beta must have shape (3,) for x (4, 3), got (1, 3)."),
        ({"add": np.ones((4, 1))}, {}, "add must have shape (4, 3) for x (4, 3), got (4, 1)."),
        ({"x": X.astype(np.int64)}, {}, "x is int64. Give float32 or float64."),
        ({"x": X.astype(np.float32)}, {}, "gamma is float64 and x is float32. Bring both to one dtype."),
        ({"beta": V.astype(np.float32)}, {}, "beta is float32 and x is float64. Bring both to one dtype."),
        ({"add": X.astype(np.float32)}, {}, "add is float32 and x is float64. Bring both to one dtype."),
        ({}, {"eps": -1e-5}, "eps must be a finite number of at least 0, got -1e-05. 1e-5 is usual."),
        ({}, {"eps": math.inf}, "eps must be a finite number of at least 0, got inf. 1e-5 is usual."),
        ({}, {"eps": math.nan}, "eps must be a finite number of at least 0, got nan. 1e-5 is usual."),
        (
            {},
            {"activation": "swish"},
            f"activation must be {', '.join(map(repr, [*ACTIVATIONS][:-1]))} or {[*ACTIVATIONS][-1]!r}, got 'swish'.",
        ),
        ({}, {"slope": -0.1}, "slope must be a finite number of at least 0, got -0.1. None takes the default."),
    ],
)
def test_misshapen_arguments_are_errors_that_echo_them(changes, options, text):
    given = {"x": X, "statistics": S, "gamma": V, "beta": V, "add": None} | changes
    with pytest.raises(InputError) as error:
        ops.normalize(*given.values(), **options)
    assert str(error.value) == f"normalize: {text}"
    with pytest.raises(InputError) as error:
        ops.normalize_backward(given["x"], given["x"], given["x"], *list(given.values())[1:], **options)
    assert str(error.value).replace("dy is int64", "x is int64") == f"normalize_backward: {text}"


def test_eps_0_is_allowed():
    assert ops.normalize(np.asarray([[3.0]]), np.asarray([[1.0], [1.0], [4.0]]), None, None, eps=0.0).tolist() == [
        [1.0]
    ]


def test_the_gradient_has_the_shape_and_dtype_of_the_output():
    with pytest.raises(
        InputError, match=r"^normalize_backward: dy \(1, 3\), x \(4, 3\), y \(4, 3\) must be of one shape\.$"
    ):
        ops.normalize_backward(X[:1], X, X, S, V, V)
    with pytest.raises(
        InputError, match=r"^normalize_backward: x is float64 and dy is float32. Bring both to one dtype\.$"
    ):
        ops.normalize_backward(X.astype(np.float32), X, X, S, V, V)


def test_statistics_of_another_form_are_errors():
    with pytest.raises(InputError, match=r"^merge: a \(3, 2\), b \(3, 3\) must be of one shape\.$"):
        ops.merge(np.zeros((3, 2)), S)
    with pytest.raises(InputError, match=r"^merge: a must be float64 \(3, channels\).*got float64 of shape \(2, 3\)"):
        ops.merge(S[:2], S[:2])
    with pytest.raises(InputError, match=r"^merge: a must be float64 .* got float64 of shape \(3,\)"):
        ops.merge(S[0], S[0])
    with pytest.raises(InputError, match=r"^commit: pending must be float64 .* got float32 of shape \(3, 3\)"):
        ops.commit(S, S.astype(np.float32), YES, V, V > 0)
    with pytest.raises(InputError, match=r"^commit: decay must have shape \(3,\), got \(2,\)\.$"):
        ops.commit(S, S, YES, V[:2], V > 0)
    with pytest.raises(InputError, match=r"^commit: unbiased must have shape \(3,\), got \(1,\)\.$"):
        ops.commit(S, S, YES, V, YES)
    with pytest.raises(InputError, match=r"^commit: ok must have shape \(1,\), got \(3,\)\.$"):
        ops.commit(S, S, V > 0, V, V > 0)
