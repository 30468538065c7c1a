"""The rows of metrics: names, labels, which of two values is better, and who reads them."""

import pytest

import bnengine as bn
from bnengine.errors import InputError
from bnengine.losses import BinaryCrossEntropy, MeanSquaredError, SoftmaxCrossEntropy
from bnengine.metrics import METRICS, Accuracy, TopK, facts_of


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
