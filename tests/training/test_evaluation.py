"""Evaluation: loss and metrics by the running statistics, in any batches, changing nothing."""

import numpy as np
import pytest

import bnengine as bn
from bnengine.data import Batch
from bnengine.errors import InputError
from bnengine.fused import backend_feature
from bnengine.losses import BinaryCrossEntropy, MeanSquaredError, SoftmaxCrossEntropy
from bnengine.training.evaluation import batches_of, default_metrics, evaluate
from tests.training.support import Rows, blobs, net, network_bits, outcome, trainer

LOSS = SoftmaxCrossEntropy()


@pytest.fixture(scope="module")
def trained():
    t = trainer(net(dtype="float64", dropout=0.3))
    t.fit(blobs(), epochs=3, batch_size=10)
    return t.network


def by_hand(network, x, y, weights=None, classes=None):
    """The weighted mean of -log softmax, from the state and the definitions."""
    s = network.state_dict()
    h = (x.astype(np.float64) @ s["0.W"] - s["1.running_mean"]) / np.sqrt(s["1.running_var"] + 1e-5)
    logits = np.maximum(h * s["1.gamma"] + s["1.beta"], 0) @ s["4.W"] + s["4.b"]
    losses = np.log(np.exp(logits).sum(1)) - logits[np.arange(len(y)), y]
    weights = np.ones(len(y)) if weights is None else weights
    weights = weights if classes is None else weights * np.asarray(classes)[y]
    return (losses * weights).sum() / weights.sum(), logits


def test_the_loss_is_the_mean_over_all_rows(trained):
    x, y = blobs(rows=50, seed=5)
    loss, logits = by_hand(trained, x, y)
    for batch_size in (1, 7, 50, 1024):
        found = evaluate(trained, LOSS, Rows(x, y), batch_size=batch_size)
        assert found["loss"] == pytest.approx(loss, rel=1e-13)
        assert found["accuracy"] == (logits.argmax(1) == y).mean()


def test_weights_and_class_weights_weigh_the_loss(trained):
    x, y = blobs(rows=50, seed=5)
    weights = np.random.default_rng(0).uniform(0, 2, 50)
    weights[:8] = 0
    loss = SoftmaxCrossEntropy(class_weights=(1.0, 2.0, 0.5))
    expected, logits = by_hand(trained, x, y, weights, (1.0, 2.0, 0.5))
    found = evaluate(trained, loss, Rows(x, y, weights), batch_size=8)
    assert found["loss"] == pytest.approx(expected, rel=1e-13)
    assert found["accuracy"] == pytest.approx(weights[logits.argmax(1) == y].sum() / weights.sum(), rel=1e-14)


@pytest.mark.parametrize("average", [None, bn.Average(0.9), bn.Average(0.9, statistics="recomputed")])
def test_evaluating_changes_no_bit_of_a_training(average):
    t = trainer(net(dropout=0.3), average=average)
    t.fit(blobs(), epochs=2, batch_size=10)
    before, nothing = outcome(t), network_bits(t.network)
    x, y = blobs(rows=40, seed=9)
    t.evaluate((x, y))
    t.evaluate((x * np.float32(1e30), y))
    t.evaluate(lambda: [(x[:3], y[:3])], metrics=[bn.metrics.TopK(2)])
    assert outcome(t) == before
    assert network_bits(t.network) == nothing


def test_nonfinite_rows_give_a_nonfinite_loss_and_change_nothing(trained):
    x, y = blobs(rows=10)
    x[3, 3] = np.nan
    before = network_bits(trained)
    found = evaluate(trained, LOSS, Rows(x, y))
    assert np.isnan(found["loss"])
    assert 0 <= found["accuracy"] <= 0.9
    assert network_bits(trained) == before


def test_metrics_are_reset_first(trained):
    x, y = blobs(rows=20)
    metrics = [bn.metrics.ConfusionMatrix(3), bn.metrics.Accuracy()]
    first = evaluate(trained, LOSS, Rows(x, y), metrics=metrics)
    assert evaluate(trained, LOSS, Rows(x, y), metrics=metrics, batch_size=3) == pytest.approx(first, rel=1e-14)
    assert np.sum(metrics[0].matrix) == 20
    assert list(evaluate(trained, LOSS, Rows(x, y), metrics=[])) == ["loss"]


def test_the_usual_metric_follows_from_the_loss():
    names = [default_metrics(loss)[0].name for loss in (LOSS, BinaryCrossEntropy(), MeanSquaredError())]
    assert names == ["accuracy", "accuracy", "mean_absolute_error"]


def test_batches_cover_every_row_once_in_order():
    x, y = blobs(rows=21)
    assert [len(b.x) for b in batches_of(Rows(x, y), 5)] == [5, 5, 5, 5, 1]
    assert [len(b.x) for b in batches_of(Rows(x, y), 5, last="join")] == [5, 5, 5, 6]
    assert np.concatenate([b.samples for b in batches_of(Rows(x, y), 4)]).tolist() == list(range(21))
    source = bn.IterableSource([(x[:9], y[:9]), (x[9:], y[9:])])
    assert [len(b.x) for b in batches_of(source, 4)] == [9, 12]


class Bottomless:
    """A custom source that knows neither its length nor how to be walked."""

    rows = None

    def take(self, _):
        raise AssertionError("nobody may ask for positions here")


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (Bottomless(), "the source does not know its number of rows. Pass arrays or an IterableSource"),
        (Rows(*blobs(rows=6), weights=np.zeros(6)), "the data has no rows, or only rows of weight 0"),
        (bn.ArraySource(blobs(rows=6)[0], None), "the data has no targets. Use predict"),
        (Rows(blobs(rows=6)[0], np.full(6, 3)), "targets for 3 outputs must be 0 to 2, got 3 to 3"),
        (
            Rows(blobs(rows=6, features=5)[0], np.zeros(6, int)),
            "the input must have 6 features, got 5",
        ),
    ],
)
def test_data_that_cannot_be_evaluated_say_why(trained, source, message):
    with pytest.raises(InputError, match=message):
        evaluate(trained, LOSS, source)


def test_rows_of_weight_zero_may_fill_whole_batches(trained):
    x, y = blobs(rows=12)
    weights = np.repeat([0.0, 1.0], 6)
    loss, _ = by_hand(trained, x[6:], y[6:])
    assert evaluate(trained, LOSS, Rows(x, y, weights), batch_size=3)["loss"] == pytest.approx(loss, rel=1e-13)


def test_a_network_without_statistics_cannot_be_evaluated():
    with pytest.raises(InputError, match="no statistics were collected yet"):
        trainer().evaluate(blobs())


def test_a_batch_without_targets_is_what_predict_is_for(trained):
    batch = Batch(blobs(rows=4)[0], None, None, np.arange(4))
    assert trained.predict(batch.x).shape == (4, 3)


@pytest.mark.parametrize("loss", [LOSS, SoftmaxCrossEntropy(class_weights=(1.0, 2.0, 0.5)), MeanSquaredError()])
@pytest.mark.parametrize("weighted", [False, True])
def test_replayed_evaluations_have_the_bits_of_those_op_by_op(loss, weighted):
    network, (x, y) = net(), blobs(rows=50, seed=5)
    x, y = x.astype(np.float32), np.eye(3)[y] if loss.task == "regression" else y
    weights = np.random.default_rng(0).uniform(0, 2, 50) if weighted else None
    trainer(network, loss=loss).fit((x, y), epochs=1, batch_size=10)
    passes, network.passes = network.passes, None
    alone = evaluate(network, loss, Rows(x, y, weights), batch_size=8)
    network.passes = passes
    for _ in range(3):
        assert evaluate(network, loss, Rows(x, y, weights), batch_size=8) == alone
        network.predict(x)
    if backend_feature("numpy", "replayer") is not None:
        assert len(passes.plans) == 3  # eight rows, the last two, and a prediction


def test_an_evaluation_sees_current_weights_and_constants():
    network, (x, y) = net(dropout=0.3), blobs(rows=48, seed=5)
    t = trainer(network)
    for classes in (None, (1.0, 2.0, 0.5), (3.0, 1.0, 1.0)):
        t.fit((x, y), epochs=t.epoch + 1, batch_size=12)
        loss, _ = by_hand(network, x, y, classes=classes)
        for _ in range(2):
            found = evaluate(network, SoftmaxCrossEntropy(class_weights=classes), Rows(x, y), batch_size=16)
            assert found["loss"] == pytest.approx(loss, rel=1e-5)
