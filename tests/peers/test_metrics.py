"""Metrics against scikit-learn."""

import numpy as np
import pytest

from bnengine.losses import SoftmaxCrossEntropy
from bnengine.metrics import R2, Accuracy, ConfusionMatrix, Loss, MeanAbsoluteError, TopK

pytestmark = pytest.mark.peers


@pytest.fixture
def peer(require):
    """scikit-learn's metrics."""
    return require("sklearn.metrics")


@pytest.mark.parametrize("weighted", [False, True])
def test_classification_metrics_equal_scikit_learns(peer, rng, weighted):
    outputs, targets = rng.standard_normal((300, 6)), rng.integers(0, 6, 300)
    outputs[np.arange(300), targets] += 1
    v = rng.random(300) if weighted else None
    predicted = outputs.argmax(axis=1)
    accuracy, top, matrix = Accuracy(), TopK(3), ConfusionMatrix(6)
    for metric in (accuracy, top, matrix):
        metric.update(outputs, targets, v)
    near = {"rel": 1e-13}
    assert accuracy.value() == pytest.approx(peer.accuracy_score(targets, predicted, sample_weight=v), **near)
    assert top.value() == pytest.approx(peer.top_k_accuracy_score(targets, outputs, k=3, sample_weight=v), **near)
    expected = peer.confusion_matrix(targets, predicted, sample_weight=v)
    np.testing.assert_allclose(matrix.matrix, expected, rtol=1e-13)
    figures = peer.precision_recall_fscore_support(targets, predicted, sample_weight=v)
    found = np.array([[r.precision, r.recall, r.f1, r.support] for r in matrix.report().classes]).T
    np.testing.assert_allclose(found, np.array(figures), rtol=1e-13)
    for row, average in ((matrix.report().macro, "macro"), (matrix.report().weighted, "weighted")):
        mean = peer.precision_recall_fscore_support(targets, predicted, sample_weight=v, average=average)[:3]
        np.testing.assert_allclose([row.precision, row.recall, row.f1], mean, rtol=1e-13)


@pytest.mark.parametrize("weighted", [False, True])
def test_regression_metrics_equal_scikit_learns(peer, rng, weighted):
    outputs, targets = rng.standard_normal((2, 200, 3))
    v = rng.random(200) if weighted else None
    error, r2 = MeanAbsoluteError(), R2()
    for metric in (error, r2):
        metric.update(outputs, targets, v)
    expected = peer.mean_absolute_error(targets, outputs, sample_weight=v)
    assert error.value() == pytest.approx(expected, rel=1e-13)
    assert r2.value() == pytest.approx(peer.r2_score(targets, outputs, sample_weight=v), rel=1e-13)


def test_the_loss_equals_scikit_learns_log_loss(peer, rng):
    outputs, targets, v = rng.standard_normal((80, 4)), rng.integers(0, 4, 80), rng.random(80)
    metric = Loss(SoftmaxCrossEntropy())
    for rows in (slice(50), slice(50, 80)):
        metric.update(outputs[rows], targets[rows], v[rows])
    q = np.exp(outputs) / np.exp(outputs).sum(axis=1, keepdims=True)
    assert metric.value() == pytest.approx(peer.log_loss(targets, q, sample_weight=v), rel=1e-13)
