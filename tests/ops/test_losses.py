"""Losses where exp would overflow, where log meets 0, on ties and on values that are not finite."""

import math

import numpy as np
import pytest

from bnengine import ops

softmax, binary, squared = ops.softmax_cross_entropy, ops.binary_cross_entropy, ops.mean_squared_error


def array(*values):
    return np.asarray(values, np.float64)


def test_weights_count_samples(rng):
    """A sample of weight 2 is two samples, one of weight 0 none; so is one of a class of weight 0."""
    logits, codes, targets = rng.standard_normal((3, 4)), np.asarray([1, 3, 0]), rng.standard_normal((3, 4))
    weights, twice = array(1.0, 2.0, 0.0), [0, 1, 1]
    for loss, target, absent in ((softmax, codes, (None,)), (binary, targets, ()), (squared, targets, ())):
        weighted = loss(logits, target, *absent, weights, divisor=4)
        repeated = loss(logits[twice], target[twice], divisor=4)
        np.testing.assert_allclose(weighted.value, repeated.value, rtol=1e-14)
        expected = np.stack([repeated.dlogits[0], 2 * repeated.dlogits[1], np.zeros(4)])
        np.testing.assert_allclose(weighted.dlogits, expected, rtol=1e-13)
    of_class = softmax(logits, codes, array(1.0, 1.0, 1.0, 0.0), divisor=1)
    np.testing.assert_allclose(of_class.value, softmax(logits[::2], codes[::2], divisor=1).value, rtol=1e-14)
    np.testing.assert_array_equal(of_class.dlogits[1], 0)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_far_logits_neither_overflow_nor_lose_the_small_side(dtype):
    large = np.finfo(dtype).max / 4
    huge = softmax(np.asarray([[large, -large, 0.0]], dtype), np.asarray([0]), divisor=1)
    assert (huge.value.tolist(), huge.dlogits.tolist()) == ([0.0], [[0.0, 0.0, 0.0]])
    far = softmax(np.asarray([[1000.0, 0.0]], dtype), np.asarray([1]), divisor=1)
    assert (far.value.tolist(), far.dlogits.tolist()) == ([1000.0], [[1.0, -1.0]])
    logits, target = np.asarray([[1000.0, -1000.0, -40.0, 40.0]], dtype), np.asarray([[1.0, 0.0, 0.0, 1.0]], dtype)
    loss = binary(logits, target, divisor=1)
    np.testing.assert_allclose([*loss.value, loss.dlogits[0, 2]], np.asarray([2, 1]) * math.exp(-40), rtol=1e-6)
    assert loss.dlogits[0, :2].tolist() == [0.0, 0.0]
    assert binary(logits, 1 - target, divisor=1).value.tolist() == [2080.0]


def test_0_log_0_is_0():
    logits = array([0.0, -np.inf])
    with np.errstate(invalid="ignore"):
        sure, wrong = (softmax(logits, array(target), divisor=1) for target in ([1.0, 0.0], [0.0, 1.0]))
    assert (sure.value.tolist(), sure.dlogits.tolist(), wrong.value.tolist()) == ([0.0], [[0.0, 0.0]], [math.inf])


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_logit_that_is_not_finite_shows_in_the_value(bad):
    with np.errstate(invalid="ignore"):
        loss = softmax(array([0.0, bad], [0.0, 0.0]), np.asarray([0, 0]), divisor=2)
        others = [of(array([bad, 0.0]), array([1.0, 1.0]), divisor=2).value for of in (binary, squared)]
    assert not np.isfinite([loss.value, *others]).any()
    assert (np.isnan(loss.dlogits[0]).any(), np.isfinite(loss.dlogits[1]).all()) == (True, True)


def test_every_loss_is_summed_in_float64():
    """In float32 small rows are lost next to a large one, and the sum of many equal rows drifts."""
    prediction = np.full((4097, 1), 1.0, np.float32)
    prediction[0] = 2.0**13
    loss = squared(prediction, np.zeros_like(prediction), divisor=1)
    assert (loss.value.dtype, loss.value[0]) == (np.float32, 2.0**26 + 4096)
    n, row = 30_001, np.asarray([[0.1, 0.7]], np.float32)
    one = softmax(row, np.asarray([0]), divisor=1).value[0].astype(np.float64)
    assert softmax(np.repeat(row, n, axis=0), np.zeros(n, np.int64), divisor=1).value[0] == np.float32(one * n)


def test_one_logit_says_yes_above_0():
    logits = array([0.1], [-0.1], [0.0], [2.0], [np.nan])
    assert ops.correct(logits, array([0.6], [0.6], [0.5], [0.5], [0.0])).tolist() == [2.0]
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
