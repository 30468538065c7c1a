"""What ops refuse, and in which words."""

import math
from typing import Any

import numpy as np
import pytest

from bnengine.errors import InputError
from bnengine.ops import REGISTRY
from bnengine.ops.activations import ACTIVATIONS

X, Y, W, V, ONE = np.zeros((4, 3)), np.zeros((4, 2)), np.zeros((3, 2)), np.ones(3), np.asarray([True])
STATISTICS, CODES, STEP, SAMPLES = np.zeros((3, 3)), np.zeros(4, np.int64), np.asarray([3]), np.arange(4)
ONE_SHAPE = "arrays must have one shape, got"
OF_3 = "must have shape (3, 3) for x (4, 3), got"
KIND = f"must be {', '.join(map(repr, [*ACTIVATIONS][:-1]))} or {[*ACTIVATIONS][-1]!r}, got"
SHARE, POSITIVE = "must be a finite number of at least 0 and below 1, got", "must be a finite number of at least 0, got"
FORMS, BACK = "x must be (..., inputs) and W (inputs, outputs)", "dy must be (..., outputs), x (..., inputs) and W"
FLOAT, ONE_DTYPE, DEFAULT = "must be float32 or float64", "Bring both to one dtype.", "None takes the default."
FORM, MEANING = "must be float64 (3, channels), got", "The rows are count, mean, biased variance."


def f4(a: np.ndarray) -> np.ndarray:
    return a.astype(np.float32)


def i8(a: np.ndarray) -> np.ndarray:
    return a.astype(np.int64)


NORMALIZE: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    f"statistics {OF_3} (3, 4).": ({"statistics": np.zeros((3, 4))}, {}),
    f"statistics {OF_3} (2, 3).": ({"statistics": np.zeros((2, 3))}, {}),
    "statistics must be float64 for every dtype of x, got float32.": ({"statistics": f4(STATISTICS)}, {}),
    "gamma must have shape (3,) for x (4, 3), got (4,).": ({"gamma": np.ones(4)}, {}),
    "beta must have shape (3,) for x (4, 3), got (1, 3).": ({"beta": np.ones((1, 3))}, {}),
    "add must have shape (4, 3) for x (4, 3), got (4, 1).": ({"add": np.ones((4, 1))}, {}),
    f"x {FLOAT}, got int64.": ({"x": i8(X)}, {}),
    f"gamma is float64 and x is float32. {ONE_DTYPE}": ({"x": f4(X)}, {}),
    f"beta is float32 and x is float64. {ONE_DTYPE}": ({"beta": f4(V)}, {}),
    f"add is float32 and x is float64. {ONE_DTYPE}": ({"add": f4(X)}, {}),
    f"eps {POSITIVE} -1e-05. 1e-5 is usual.": ({}, {"eps": -1e-5}),
    f"eps {POSITIVE} inf. 1e-5 is usual.": ({}, {"eps": math.inf}),
    f"eps {POSITIVE} nan. 1e-5 is usual.": ({}, {"eps": math.nan}),
    f"activation {KIND} 'swish'.": ({}, {"activation": "swish"}),
    f"slope {POSITIVE} -0.1. {DEFAULT}": ({}, {"slope": -0.1}),
}


@pytest.mark.parametrize("text", NORMALIZE)
def test_normalize_and_its_gradient_refuse(text):
    changes, options = NORMALIZE[text]
    given = {"x": X, "statistics": STATISTICS, "gamma": V, "beta": V, "add": None} | changes
    assert_refused("normalize", tuple(given.values()), options, text)
    args = given["x"], given["x"], *given.values()
    assert_refused("normalize_backward", args, options, text.replace(f"x {FLOAT}", f"dy {FLOAT}"))


def assert_refused(name: str, args: Any, options: Any, text: str) -> None:
    with pytest.raises(InputError) as error:
        REGISTRY[name](*args, **options)
    assert str(error.value) == f"{name}: {text}"


KEY = {"seed": 0, "layer": 0, "rate": 0.5}
RATE = "It is the share of values set to zero."
ROWS = "logits must be (..., classes), all at least 1, got shape"
BY_4 = {"divisor": 4}
OTHERS: list[tuple[str, tuple[Any, ...], dict[str, Any], str]] = [
    ("normalize_backward", (X[:1], X, X, STATISTICS, V, V), {}, f"{ONE_SHAPE} dy (1, 3), x (4, 3), y (4, 3)."),
    ("normalize_backward", (f4(X), X, X, STATISTICS, V, V), {}, f"x is float64 and dy is float32. {ONE_DTYPE}"),
    ("merge", (np.zeros((3, 2)), STATISTICS), {}, f"{ONE_SHAPE} a (3, 2), b (3, 3)."),
    ("merge", (STATISTICS[:2], STATISTICS[:2]), {}, f"a {FORM} float64 of shape (2, 3). {MEANING}"),
    ("merge", (STATISTICS[0], STATISTICS[0]), {}, f"a {FORM} float64 of shape (3,). {MEANING}"),
    ("commit", (STATISTICS, f4(STATISTICS), ONE, V, V > 0), {}, f"pending {FORM} float32 of shape (3, 3). {MEANING}"),
    ("commit", (STATISTICS, STATISTICS, ONE, V[:2], V > 0), {}, "decay must have shape (3,), got (2,)."),
    ("commit", (STATISTICS, STATISTICS, ONE, V, ONE), {}, "unbiased must have shape (3,), got (1,)."),
    ("commit", (STATISTICS, STATISTICS, V > 0, V, V > 0), {}, "ok must have shape (1,), got (3,)."),
    ("dropout", (X, STEP, SAMPLES), KEY | {"rate": 1.0}, f"rate {SHARE} 1.0. {RATE}"),
    ("dropout", (X, STEP, SAMPLES), KEY | {"rate": -0.1}, f"rate {SHARE} -0.1. {RATE}"),
    ("dropout", (X, STEP, SAMPLES), KEY | {"rate": math.nan}, f"rate {SHARE} nan. {RATE}"),
    ("dropout", (X, STEP, SAMPLES[:3]), KEY, "samples must have one index per row of x (4, 3), got shape (3,)."),
    ("dropout", (i8(X), STEP, SAMPLES), KEY, f"x {FLOAT}, got int64."),
    ("dropout_backward", (X, X > 0), {"rate": 1.0}, f"rate {SHARE} 1.0. {RATE}"),
    ("dropout_backward", (X, X[:1] > 0), {"rate": 0.5}, f"{ONE_SHAPE} dy (4, 3), keep (1, 3)."),
    ("dropout_backward", (SAMPLES, SAMPLES > 0), {"rate": 0.5}, f"dy {FLOAT}, got int64."),
    ("activation", (X,), {"kind": "Relu"}, f"kind {KIND} 'Relu'."),
    ("activation", (X,), {"kind": "leaky_relu", "slope": math.inf}, f"slope {POSITIVE} inf. {DEFAULT}"),
    ("activation", (X > 0,), {"kind": "relu"}, f"x {FLOAT}, got bool."),
    ("activation_backward", (X, X, X), {"kind": ""}, f"kind {KIND} ''."),
    ("activation_backward", (X, X, X[0]), {"kind": "relu"}, f"{ONE_SHAPE} dy (4, 3), x (4, 3), y (3,)."),
    ("activation_backward", (X, X, f4(X)), {"kind": "relu"}, f"y is float32 and dy is float64. {ONE_DTYPE}"),
    ("total", (X, W), {}, f"{ONE_SHAPE} a (4, 3), b (3, 2)."),
    ("total", (X, i8(X)), {}, f"b {FLOAT}, got int64."),
    ("affine", (X, W), {"activation": "swish"}, f"activation {KIND} 'swish'."),
    ("affine", (X, W[:2]), {}, f"{FORMS}, got x (4, 3) and W (2, 2)."),
    ("affine", (X[0], W), {}, f"{FORMS}, got x (3,) and W (3, 2)."),
    ("affine", (X, W[:, 0]), {}, f"{FORMS}, got x (4, 3) and W (3,)."),
    ("affine", (X, W, V), {}, "b must have shape (2,) for W (3, 2), got (3,)."),
    ("affine", (X, f4(W)), {}, f"W is float32 and x is float64. {ONE_DTYPE}"),
    ("affine", (i8(X), W), {}, f"x {FLOAT}, got int64."),
    ("affine_backward", (Y, X, W, Y), {"activation": "swish"}, f"activation {KIND} 'swish'."),
    ("affine_backward", (Y, X, W, Y), {"slope": -1.0}, f"slope {POSITIVE} -1.0. {DEFAULT}"),
    ("affine_backward", (Y, X, W, Y), {"activation": "gelu"},
     "the derivative of gelu reads z, got y. Apply gelu as an op after affine."),
    ("affine_backward", (Y, X, W, Y[:1]), {}, f"{ONE_SHAPE} dy (4, 2), y (1, 2)."),
    ("affine_backward", (X, X, W, X), {}, f"{BACK} (inputs, outputs), got dy (4, 3), x (4, 3) and W (3, 2)."),
    ("affine_backward", (Y, Y, W, Y), {}, f"{BACK} (inputs, outputs), got dy (4, 2), x (4, 2) and W (3, 2)."),
    ("affine_backward", (Y, X, f4(W), Y), {}, f"W is float32 and dy is float64. {ONE_DTYPE}"),
    ("softmax_cross_entropy", (X, CODES[:3]), BY_4, "integer targets must have shape (4,), got (3,)."),
    ("softmax_cross_entropy", (X, CODES - 1), BY_4, "targets must be 0 to 2, got -1 to -1."),
    ("softmax_cross_entropy", (X, CODES + np.eye(4, dtype=int)[1] * 3), BY_4, "targets must be 0 to 2, got 0 to 3."),
    ("softmax_cross_entropy", (X, X[:, :2]), BY_4, "probabilities must have shape (4, 3), got (4, 2)."),
    ("softmax_cross_entropy", (X, f4(X)), BY_4, f"target is float32 and logits is float64. {ONE_DTYPE}"),
    ("softmax_cross_entropy", (i8(X), CODES), BY_4, f"logits {FLOAT}, got int64."),
    ("softmax_cross_entropy", (X, CODES, V[:2]), BY_4, "class_weights must have shape (3,), got (2,)."),
    ("softmax_cross_entropy", (X, CODES, f4(V)), BY_4, f"class_weights is float32 and logits is float64. {ONE_DTYPE}"),
    ("softmax_cross_entropy", (X, CODES, None, V), BY_4, "sample_weights must have shape (4,), got (3,)."),
    ("softmax_cross_entropy", (X, CODES, None, CODES), BY_4, f"sample_weights {FLOAT}, got int64."),
    ("softmax_cross_entropy", (X, CODES), BY_4 | {"label_smoothing": 1.0}, f"label_smoothing {SHARE} 1.0."),
    ("softmax_cross_entropy", (X, CODES), BY_4 | {"label_smoothing": -0.1}, f"label_smoothing {SHARE} -0.1."),
    ("softmax_cross_entropy", (X[:0], CODES[:0]), BY_4, f"{ROWS} (0, 3)."),
    ("softmax_cross_entropy", (X[0], CODES[0]), BY_4, f"{ROWS} (3,)."),
    *((name, args, BY_4, text) for name in ("binary_cross_entropy", "mean_squared_error") for args, text in (
        ((X, X[:, :1]), "target must have the shape of prediction (4, 3), got (4, 1)."),
        ((X, X, V), "sample_weights must have shape (4,), got (3,)."),
        ((X, X, np.ones((4, 1))), "sample_weights must have shape (4,), got (4, 1)."),
        ((np.ones((2, 3, 4)), np.ones((2, 3, 4)), V), "sample_weights must have shape (2, 3), got (3,)."),
        ((X, CODES), f"target {FLOAT}, got int64."),
        ((f4(X), X), f"target is float64 and prediction is float32. {ONE_DTYPE}"),
        ((X[:0], X[:0]), "prediction must be (..., outputs), all at least 1, got shape (0, 3)."),
        ((X[0], X[0]), "prediction must be (..., outputs), all at least 1, got shape (3,)."),
    )),
    *(("moments", (np.zeros(shape),), {}, f"x must be (rows, channels), both at least 1, got shape {shape}.")
      for shape in ((), (3,), (0, 3), (3, 0), (2, 0, 3))),
]  # fmt: skip


@pytest.mark.parametrize(("name", "args", "options", "text"), OTHERS)
def test_an_op_refuses(name, args, options, text):
    assert_refused(name, args, options, text)


@pytest.mark.parametrize(
    ("name", "args", "options"),
    [
        ("normalize", (X, STATISTICS + 1, None, None), {"eps": 0.0}),
        ("activation", (X,), {"kind": "leaky_relu", "slope": 0.0}),
        ("softmax_cross_entropy", (X, CODES + 2), BY_4 | {"label_smoothing": 0.0}),
        ("dropout", (X[:0], STEP, SAMPLES[:0]), KEY),
    ],
)
def test_the_edge_is_allowed(name, args, options):
    REGISTRY[name](*args, **options)
