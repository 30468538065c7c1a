"""The rows of metrics: names, labels, which of two values is better, and who reads them."""

import numpy as np
import pytest

import bnengine as bn
from bnengine.errors import InputError
from bnengine.losses import BinaryCrossEntropy, MeanSquaredError, SoftmaxCrossEntropy
from bnengine.metrics import METRICS, R2, Accuracy, ConfusionMatrix, MeanAbsoluteError, Metric, TopK, facts_of


@pytest.mark.parametrize(
    ("name", "facts"),
    [
        ("accuracy", ("accuracy", True, True)),
        ("top_5_accuracy", ("top-5 accuracy", True, True)),
        ("top_12_accuracy", ("top-12 accuracy", True, True)),
        ("loss", ("loss", False, False)),
        ("mean_absolute_error", ("mean absolute error", False, False)),
        ("r2", ("R2", True, False)),
        ("confusion", ("accuracy (confusion matrix)", True, True)),
        ("mean_squared_error", ("mean squared error", None, False)),
        ("area_2", ("area 2", None, False)),
    ],
)
def test_facts_of_a_name_in_records(name, facts):
    assert facts_of(name) == facts


def test_each_metric_has_the_facts_of_its_name():
    assert METRICS.make("accuracy").name == Accuracy().name == "accuracy"
    assert METRICS.make({"name": "top_k_accuracy", "k": 3}).name == TopK(3).name
    for name, metric in METRICS.items():
        assert facts_of(name) == (metric.label, metric.higher_is_better, metric.percent)


def test_a_metric_of_ones_own_registers_itself(monkeypatch):
    monkeypatch.setattr(METRICS, "_classes", dict(METRICS._classes))

    @METRICS.register
    class Median(Accuracy):
        name, label, higher_is_better, percent = "median", "median", False, False

    assert facts_of("median") == ("median", False, False)
    assert METRICS["median"] is Median
    assert not bn.EarlyStopping(metric="valid_median").higher


@pytest.mark.parametrize(("metric", "higher"), [("valid_r2", True), ("train_accuracy", True), ("gradient_norm", False)])
def test_early_stopping_knows_which_value_is_better(metric, higher):
    assert bn.EarlyStopping(metric=metric).higher is higher


def test_early_stopping_does_not_guess():
    with pytest.raises(InputError, match=r"higher_is_better must be True or False, got None\. 'valid_area' is not in"):
        bn.EarlyStopping(metric="valid_area")
    assert bn.EarlyStopping(metric="valid_area", higher_is_better=True).higher


def test_the_usual_loss_follows_from_task_and_outputs():
    usual = bn.losses.usual_loss
    assert usual("classification") == usual("classification", 3) == SoftmaxCrossEntropy()
    assert usual("classification", 1) == BinaryCrossEntropy()
    assert usual("regression") == usual("regression", 1) == MeanSquaredError()
    assert [loss.outputs(2) for loss in (SoftmaxCrossEntropy(), BinaryCrossEntropy(), MeanSquaredError())] == [2, 1, 2]
    assert all(loss.metric in METRICS for loss in bn.losses.LOSSES.values())


MAKE = [Accuracy, lambda: TopK(2), lambda: ConfusionMatrix(5), MeanAbsoluteError, R2]


@pytest.mark.parametrize("make", MAKE, ids=lambda make: make().name)
@pytest.mark.parametrize("weighted", [False, True])
def test_batches_in_any_cut_and_order_give_the_same_bits(rng, make, weighted):
    metric, merged, whole = make(), make(), make()
    outputs, targets = rng.standard_normal((97, 5)), rng.integers(0, 5, 97)
    if isinstance(metric, MeanAbsoluteError | R2):
        targets = 1e6 + rng.standard_normal((97, 5))
    weights = rng.random(97) * 10.0 ** rng.integers(-20, 20, 97) if weighted else np.ones(97)
    whole.update(outputs, targets, weights)
    for rows in reversed(np.split(np.arange(97), [1, 4, 50, 50, 96])):
        part = make()
        for one in (metric, part):
            one.update(outputs[rows], targets[rows], weights[rows])
        merged.merge(part)
    assert whole.value() == merged.value() == metric.value()
    if isinstance(whole, ConfusionMatrix):
        assert np.array_equal(whole.matrix, merged.matrix)
    assert isinstance(metric, Metric)
    metric.reset()
    metric.update(outputs[:2], targets[:2], np.zeros(2))
    metric.update(outputs[:0], targets[:0])
    with pytest.raises(InputError, match="no rows"):
        metric.value()
