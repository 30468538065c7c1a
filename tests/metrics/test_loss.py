"""The loss as a metric, against the formulas written out."""

import numpy as np
import pytest

from bnengine.errors import InputError
from bnengine.losses import BinaryCrossEntropy, MeanSquaredError, SoftmaxCrossEntropy
from bnengine.metrics import Loss, Metric


def surprise(logits, targets):
    logits = np.asarray(logits, np.float64)
    q = np.exp(logits) / np.exp(logits).sum(axis=-1, keepdims=True)
    return -np.log(q[np.arange(len(q)), targets])


def test_the_loss_is_the_weighted_mean_over_rows_and_not_over_batches(rng):
    logits, targets, weights = rng.standard_normal((9, 3)), rng.integers(0, 3, 9), rng.random(9)
    weights[4], logits[4] = 0, np.nan
    metric, other = (Loss(SoftmaxCrossEntropy(class_weights=(1, 2, 3))) for _ in range(2))
    metric.update(logits[:5], targets[:5], weights[:5])
    metric.update(logits[5:6], targets[5:6], weights[5:6])
    other.update(logits[6:], targets[6:], weights[6:])
    metric.merge(other)
    keep = weights > 0
    v = weights[keep] * np.array([1, 2, 3])[targets[keep]]
    assert metric.value() == pytest.approx((v * surprise(logits[keep], targets[keep])).sum() / v.sum(), rel=1e-14)


def test_the_loss_of_sequences_weighs_each_place_by_its_sample(rng):
    logits, targets, weights = rng.standard_normal((3, 2, 4)), rng.integers(0, 4, (3, 2)), np.array([1.0, 0.0, 2.0])
    metric = Loss(SoftmaxCrossEntropy())
    metric.update(logits, targets, weights)
    v = np.repeat(weights, 2)
    rows = surprise(logits.reshape(6, 4), targets.ravel())
    assert metric.value() == pytest.approx((v * rows).sum() / v.sum(), rel=1e-14)


def test_one_logit_and_numbers_have_their_losses():
    binary = Loss(BinaryCrossEntropy())
    binary.update(np.array([0.0, 2.0]), np.array([1, 0]))
    assert binary.value() == pytest.approx((np.log(2) + np.log1p(np.exp(2))) / 2, rel=1e-15)
    squared = Loss(MeanSquaredError())
    squared.update(np.array([[1.0, 2.0]], np.float32), np.array([[0.0, 5.0]]))
    assert squared.value() == 5


def test_means_that_are_known_are_added_by_their_weight():
    metric = Loss()
    metric.add(1.0, 3)
    metric.add(5.0, 1)
    metric.add(float("nan"), 0)
    assert metric.value() == 2.0


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_an_output_that_is_not_finite_makes_the_loss_infinite(bad):
    metric, known, clean = Loss(MeanSquaredError()), Loss(), Loss(MeanSquaredError())
    metric.update([1.0, bad], [1.0, 1.0])
    known.add(bad, 2)
    clean.update([1.0], [1.0])
    clean.merge(metric)
    assert metric.value() == known.value() == clean.value() == np.inf
    metric.reset()
    metric.update([1.0], [3.0])
    assert metric.value() == 4
    metric.update([1e200], [0.0])
    assert metric.value() == np.inf


def test_no_rows_no_function_and_bad_weights_are_errors():
    metric = Loss(MeanSquaredError())
    assert isinstance(metric, Metric)
    metric.update(np.ones((2, 1)), np.ones((2, 1)), np.zeros(2))
    with pytest.raises(InputError, match="no rows"):
        metric.value()
    with pytest.raises(InputError, match="no loss function"):
        Loss().update([1.0], [1.0])
    for weight in (-1, float("nan"), float("inf")):
        with pytest.raises(InputError, match="total weight of a batch"):
            Loss().add(1.0, weight)
