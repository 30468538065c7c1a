"""Losses against values worked by hand, against each other, and where exp would overflow."""

import math
import re

import numpy as np
import pytest

from bnengine import ops
from bnengine.errors import InputError

softmax, binary, squared = ops.softmax_cross_entropy, ops.binary_cross_entropy, ops.mean_squared_error
LN2, LN3 = math.log(2), math.log(3)


def array(*values):
    return np.asarray(values, np.float64)


def assert_same(one, other, rtol=1e-13):
    for a, b in zip(one, other, strict=True):
        np.testing.assert_allclose(a, b, rtol=rtol, atol=1e-15)


# -- softmax ----------------------------------------------------------------------------------------------------------


def test_integers_are_one_hot_probabilities(rng):
    logits, codes = rng.standard_normal((6, 4)), rng.integers(0, 4, 6)
    for smoothing in (0.0, 0.2):
        options = {"divisor": 6, "label_smoothing": smoothing}
        given = rng.random(4), rng.random(6)
        assert_same(softmax(logits, codes, *given, **options), softmax(logits, np.eye(4)[codes], *given, **options))
    assert_same(softmax(logits, codes.astype(np.int8), divisor=6), softmax(logits, codes, divisor=6))


def test_a_sample_of_weight_2_counts_as_two_samples(rng):
    logits, codes = rng.standard_normal((3, 4)), np.asarray([1, 3, 0])
    targets = rng.standard_normal((3, 4))
    weights, twice = array(1.0, 2.0, 1.0), [0, 1, 1, 2]
    weighted, repeated = (
        softmax(logits, codes, None, weights, divisor=4),
        softmax(logits[twice], codes[twice], divisor=4),
    )
    np.testing.assert_allclose(weighted.value, repeated.value, rtol=1e-14)
    np.testing.assert_allclose(weighted.dlogits, repeated.dlogits[[0, 1, 3]] * weights[:, None], rtol=1e-13)
    for loss in (binary, squared):
        weighted, repeated = (
            loss(logits, targets, weights, divisor=4),
            loss(logits[twice], targets[twice], divisor=4),
        )
        np.testing.assert_allclose(weighted.value, repeated.value, rtol=1e-14)
        np.testing.assert_allclose(weighted.dlogits, repeated.dlogits[[0, 1, 3]] * weights[:, None], rtol=1e-13)


def test_a_sample_or_class_of_weight_0_counts_for_nothing(rng):
    logits, codes = rng.standard_normal((3, 4)), np.asarray([1, 3, 0])
    alone = softmax(logits[[0, 2]], codes[[0, 2]], divisor=1)
    for given in ((None, array(1.0, 0.0, 1.0)), (array(1.0, 1.0, 1.0, 0.0), None)):
        loss = softmax(logits, codes, *given, divisor=1)
        np.testing.assert_allclose(loss.value, alone.value, rtol=1e-14)
        np.testing.assert_array_equal(loss.dlogits[1], 0)
        np.testing.assert_array_equal(loss.dlogits[[0, 2]], alone.dlogits)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_shift_of_all_logits_changes_nothing(dtype):
    logits = np.asarray([[0.0, 1.0, 3.0]], dtype)
    plain = softmax(logits, np.asarray([1]), divisor=1)
    for shift in (2.0**12, -(2.0**12), 2.0**20):
        assert_same(softmax(logits + np.asarray(shift, dtype), np.asarray([1]), divisor=1), plain)
    large = np.finfo(dtype).max / 4
    huge = softmax(np.asarray([[large, -large, 0.0]], dtype), np.asarray([0]), divisor=1)
    assert huge.value.tolist() == [0.0]
    assert huge.dlogits.tolist() == [[0.0, 0.0, 0.0]]
    far = softmax(np.asarray([[1000.0, 0.0]], dtype), np.asarray([1]), divisor=1)
    assert far.value.tolist() == [1000.0]
    assert far.dlogits.tolist() == [[1.0, -1.0]]


def test_0_log_0_is_0():
    logits = array([0.0, -np.inf])
    with np.errstate(invalid="ignore"):
        sure = softmax(logits, array([1.0, 0.0]), divisor=1)
        wrong = softmax(logits, array([0.0, 1.0]), divisor=1)
    assert sure.value.tolist() == [0.0]
    assert sure.dlogits.tolist() == [[0.0, 0.0]]
    assert wrong.value.tolist() == [math.inf]


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_logit_that_is_not_finite_shows_in_the_value(bad):
    with np.errstate(invalid="ignore"):
        loss = softmax(array([0.0, bad], [0.0, 0.0]), np.asarray([0, 0]), divisor=2)
        assert not np.isfinite(loss.value).any()
        assert not np.isfinite(binary(array([bad, 0.0]), array([1.0, 1.0]), divisor=2).value).any()
        assert not np.isfinite(squared(array([bad, 0.0]), array([1.0, 1.0]), divisor=2).value).any()
    assert np.isnan(loss.dlogits[0]).any()
    assert np.isfinite(loss.dlogits[1]).all()


def test_float32_values_are_summed_in_float64():
    """Sixteen million and many small rows: a sum in float32 would lose each of them."""
    prediction = np.full((4097, 1), 1.0, np.float32)
    prediction[0] = 2.0**13
    loss = squared(prediction, np.zeros_like(prediction), divisor=1)
    assert loss.value.dtype == np.float32
    assert loss.value[0] == 2.0**26 + 4096


def test_every_loss_is_summed_in_float64():
    """Equal rows: a sum in float32 drifts by many units of rounding, one in float64 by none that float32 shows."""
    n, row = 30_001, np.asarray([[0.1, 0.7]], np.float32)
    logits = np.repeat(row, n, axis=0)
    one = softmax(row, np.asarray([0]), divisor=1).value[0].astype(np.float64)
    assert softmax(logits, np.zeros(n, np.int64), divisor=1).value[0] == np.float32(one * n)


# -- yes or no --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_far_logits_neither_overflow_nor_lose_the_small_side(dtype):
    logits = np.asarray([[1000.0, -1000.0, -40.0, 40.0]], dtype)
    loss = binary(logits, np.asarray([[1.0, 0.0, 0.0, 1.0]], dtype), divisor=1)
    np.testing.assert_allclose(loss.value, [2 * math.exp(-40)], rtol=1e-6)
    assert loss.dlogits[0, :2].tolist() == [0.0, 0.0]
    np.testing.assert_allclose(loss.dlogits[0, 2], math.exp(-40), rtol=1e-6)
    assert binary(logits, 1 - np.asarray([[1.0, 0.0, 0.0, 1.0]], dtype), divisor=1).value.tolist() == [2080.0]


# -- correct -----------------------------------------------------------------------------------------------------------


def test_one_logit_says_yes_above_0():
    logits = array([0.1], [-0.1], [0.0], [2.0], [np.nan])
    assert ops.correct(logits, array([0.6], [0.6], [0.5], [0.5], [0.0])).tolist() == [2.0]
    for logit, target, right in ((0.0, 0.5, 1), (2.0, 0.5, 0), (1e-300, 0.6, 1), (0.0, 0.6, 0)):
        assert ops.correct(array([logit]), array([target])).tolist() == [right]
    deep = ops.correct(logits[:4].reshape(2, 2, 1), array(0.6, 0.6, 0.5, 0.5).reshape(2, 2, 1))
    assert deep.tolist() == [2.0]
    # With integer targets a single class is always right, unless the logit is no number.
    assert ops.correct(logits, np.zeros(5, np.int64)).tolist() == [4.0]


def test_the_most_probable_class_is_that_of_the_last_axis():
    """Two images of two places and three classes; with the classes on the middle axis there would be no such count."""
    logits = np.asarray([[[9.0, 0, 0], [0, 9, 0]], [[0, 0, 9], [9, 0, 0]]])
    probabilities = np.asarray([[[0.6, 0.3, 0.1], [0.2, 0.7, 0.1]], [[0.1, 0.8, 0.1], [0.5, 0.1, 0.4]]])
    assert ops.correct(logits, probabilities).tolist() == [3.0]
    assert ops.correct(logits, np.asarray([[0, 1], [1, 0]])).tolist() == [3.0]


def test_a_target_of_a_half_and_a_logit_of_0_say_no():
    logits, half = np.asarray([[-1.0], [0.0], [1.0]]), np.full((3, 1), 0.5)
    assert ops.correct(logits, half).tolist() == [2.0]


# -- errors -----------------------------------------------------------------------------------------------------------

L, C = np.zeros((4, 3)), np.zeros(4, np.int64)


@pytest.mark.parametrize(
    ("args", "options", "text"),
    [
        ((L, C[:3]), {}, "integer targets must have shape (4,), got (3,)."),
        ((L, C - 1), {}, "targets must be 0 to 2, got -1 to -1."),
        ((L, C + np.asarray([0, 3, 0, 0])), {}, "targets must be 0 to 2, got 0 to 3."),
        ((L, L[:, :2]), {}, "probabilities must have shape (4, 3), got (4, 2)."),
        ((L, L.astype(np.float32)), {}, "target is float32 and logits is float64. Bring both to one dtype."),
        ((L.astype(np.int64), C), {}, "logits is int64. Give float32 or float64."),
        ((L, C, np.ones(4)), {}, "class_weights must have shape (3,), got (4,)."),
        (
            (L, C, np.ones(3, np.float32)),
            {},
            "class_weights is float32 and logits is float64. Bring both to one dtype.",
        ),
        ((L, C, None, np.ones(3)), {}, "sample_weights must have shape (4,), got (3,)."),
        ((L, C, None, np.ones(4, np.int64)), {}, "sample_weights is int64. Give float32 or float64."),
        (
            (L, C),
            {"label_smoothing": 1.0},
            "label_smoothing must be a finite number of at least 0 and below 1, got 1.0.",
        ),
        (
            (L, C),
            {"label_smoothing": -0.1},
            "label_smoothing must be a finite number of at least 0 and below 1, got -0.1.",
        ),
        ((L[:0], C[:0]), {}, "logits (0, 3) have no rows of classes. Give (..., classes), all at least 1."),
        ((L[0], C[0]), {}, "logits (3,) have no rows of classes. Give (..., classes), all at least 1."),
    ],
)
def test_what_softmax_cannot_take_is_an_error_that_echoes_it(args, options, text):
    with pytest.raises(InputError) as error:
        softmax(*args, divisor=4, **options)
    assert str(error.value) == f"softmax_cross_entropy: {text}"


@pytest.mark.parametrize("loss", [binary, squared])
@pytest.mark.parametrize(
    ("args", "text"),
    [
        ((L, L[:, :1]), "prediction (4, 3) and target (4, 1) must be of one shape."),
        ((L, L, np.ones(3)), "sample_weights must have shape (4,), got (3,)."),
        ((L, L, np.ones((4, 1))), "sample_weights must have shape (4,), got (4, 1)."),
        ((L, C), "target is int64. Give float32 or float64."),
        ((L.astype(np.float32), L), "target is float64 and prediction is float32. Bring both to one dtype."),
        ((L[:0], L[:0]), "prediction (0, 3) has no rows. Give (..., outputs), all at least 1."),
        ((L[0], L[0]), "prediction (3,) has no rows. Give (..., outputs), all at least 1."),
    ],
)
def test_what_other_losses_cannot_take_is_an_error(loss, args, text):
    with pytest.raises(InputError) as error:
        loss(*args, divisor=4)
    assert str(error.value) == f"{loss.name}: {text}"


@pytest.mark.parametrize("loss", [binary, squared])
@pytest.mark.parametrize(("shape", "rows"), [((4, 2), (4,)), ((2, 3, 4), (2, 3))])
def test_an_error_of_weights_names_the_shape_of_the_rows(loss, shape, rows):
    with pytest.raises(InputError, match=re.escape(f"{loss.name}: sample_weights must have shape {rows}, got (9,).")):
        loss(np.ones(shape), np.ones(shape), np.ones(9), divisor=1)


def test_label_smoothing_0_and_the_last_class_are_allowed():
    assert softmax(L, C + 2, divisor=4, label_smoothing=0.0).value[0] == pytest.approx(LN3, rel=1e-15)
