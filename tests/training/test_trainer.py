"""Trainer.fit: what a record says, which rows each step sees, accumulation, and every kind of data and task."""

from math import inf, nan

import numpy as np
import pytest

import bnengine as bn
from bnengine.data import Batch, groups, order
from bnengine.errors import DataError, InputError
from bnengine.training.evaluation import evaluate
from tests.support import require
from tests.training.support import Rows, blobs, net, network_bits, outcome, trainer

KEYS = ["epoch", "steps", "learning_rate", "train_loss", "gradient_norm", "skipped_steps", "seconds"]


def linear(classes=2, **options):
    """One dense layer in float64, whose loss can be worked out by hand."""
    return bn.Sequential(bn.Dense(3, classes), backend="numpy", dtype="float64", **options)


def cross_entropy(network, x, y):
    """-log softmax of each row, by the definition."""
    logits = x @ network.named_parameters()["0.W"] + network.named_parameters()["0.b"]
    return np.log(np.exp(logits).sum(1)) - logits[np.arange(len(y)), y]


# -- records -----------------------------------------------------------------------------------------------------------


def test_the_figures_of_a_record_of_a_classification():
    x, y = blobs()
    history = trainer().fit((x[:70], y[:70]), epochs=2, batch_size=16, validation=(x[70:], y[70:]))
    assert list(history[0]) == [
        "epoch", "steps", "learning_rate", "train_loss", "train_accuracy", "valid_loss", "valid_accuracy",
        "gradient_norm", "skipped_steps", "seconds", "samples_per_second",
    ]  # fmt: skip
    assert [(r["epoch"], r["steps"], r["skipped_steps"]) for r in history] == [(0, 5, 0), (1, 10, 0)]
    last = history[1]
    assert last["learning_rate"] == 0.01
    assert last["seconds"] > 0
    assert last["samples_per_second"] == pytest.approx(70 / last["seconds"])
    assert all(type(value) in (int, float) for value in last.values())


def test_without_validation_a_record_has_training_figures_only():
    (record,) = trainer().fit(blobs(), epochs=1)
    assert not [name for name in record if name.startswith("valid")]
    assert set(KEYS) < set(record)


def test_a_regression_has_no_accuracy_but_an_absolute_error():
    x, _ = blobs()
    y = x[:, :2] - 1
    t = trainer(net(outputs=2), loss="mean_squared_error")
    record = t.fit((x, y), epochs=30, batch_size=30, validation=(x, y))[-1]
    assert not [name for name in record if "accuracy" in name]
    error = np.abs(t.network.predict(x) - y).mean()
    assert record["valid_mean_absolute_error"] == pytest.approx(error, rel=1e-5)
    assert record["train_loss"] < 0.5 < np.var(y)


def test_one_logit_for_two_classes_trains_and_is_scored():
    x, y = blobs(classes=2)
    t = trainer(net(outputs=1), loss="binary_cross_entropy")
    record = t.fit((x, y), epochs=15, batch_size=30, validation=(x, y))[-1]
    right = (t.network.predict(x)[:, 0] > 0) == (y == 1)
    assert record["valid_accuracy"] == right.mean() > 0.9


def test_the_record_has_the_given_metrics():
    x, y = blobs()
    metrics = [bn.metrics.Accuracy(), bn.metrics.TopK(2)]
    t = trainer()
    record = t.fit((x, y), epochs=1, validation=(x, y), metrics=metrics)[-1]
    logits = t.network.predict(x)
    second = np.sort(logits, axis=1)[:, -2]
    assert record["valid_accuracy"] == (logits.argmax(1) == y).mean() == metrics[0].value()
    assert record["valid_top_2_accuracy"] == (logits[np.arange(len(y)), y] >= second).mean()


def test_the_training_loss_is_the_weighted_mean_of_good_rows():
    """Batches of 4, 4 and 2 rows, at rate 0: the network stays what it is, and the mean can be taken by hand."""
    rng = np.random.default_rng(3)
    x, y = rng.standard_normal((10, 3)), rng.integers(0, 2, 10)
    weights = rng.uniform(0.5, 2, 10)
    network = linear()
    losses = cross_entropy(network, x, y)
    plain = trainer(network, "sgd", learning_rate=0.0).fit(Rows(x, y), epochs=1, batch_size=4)[0]
    assert plain["train_loss"] == pytest.approx(losses.mean(), rel=1e-14)
    logits = network.predict(x)
    assert plain["train_accuracy"] == (logits.argmax(1) == y).mean()

    weighed = trainer(linear(), "sgd", learning_rate=0.0).fit(Rows(x, y, weights), epochs=1, batch_size=4)[0]
    assert weighed["train_loss"] == pytest.approx((losses * weights).sum() / weights.sum(), rel=1e-14)

    positions = order(10, seed=0, epoch=0)
    bad, kept = x.copy(), np.delete(positions, range(4, 8))
    bad[positions[5]] = nan
    skipped = trainer(linear(), "sgd", learning_rate=0.0).fit(Rows(bad, y), epochs=1, batch_size=4)[0]
    assert skipped["train_loss"] == pytest.approx(losses[kept].mean(), rel=1e-14)
    assert skipped["train_accuracy"] == (logits.argmax(1) == y)[kept].mean()
    assert (skipped["steps"], skipped["skipped_steps"]) == (2, 1)


def test_an_epoch_of_skipped_steps_has_no_training_loss():
    x, y = blobs(rows=20)
    record = trainer().fit(Rows(np.full_like(x, inf), y), epochs=1, batch_size=10)[0]
    assert np.isnan(record["train_loss"])
    assert record["skipped_steps"] == 2


# -- rows --------------------------------------------------------------------------------------------------------------


def test_seed_and_epoch_give_the_order_of_rows():
    x, y = blobs(rows=22)
    for seed in (0, 7):
        source = Rows(x, y)
        trainer(net(seed=seed)).fit(source, epochs=2, batch_size=5)
        expected = [order(22, seed=seed, epoch=e)[rows].tolist() for e in range(2) for rows in groups(22, 5)]
        assert source.taken == expected
    assert source.taken[0] != source.taken[5]


@pytest.mark.parametrize("name", ["array_api_strict", "torch"])
def test_every_backend_reaches_the_same_weights(name):
    require(name)
    x, y = blobs(rows=40)
    sources, states = [], []
    for backend in ("numpy", name):
        source = Rows(x, y)
        t = trainer(net(backend=backend, dtype="float64", dropout=0.2), average=bn.Average(0.5))
        t.fit(source, epochs=2, batch_size=8, validation=(x, y))
        sources.append(source.taken)
        states.append(t.network.state_dict())
    assert sources[0] == sources[1]
    for key, array in states[0].items():
        assert states[1][key] == pytest.approx(array, rel=1e-10, abs=1e-12), key


def test_a_last_batch_of_one_row_joins_the_one_before():
    x, y = blobs(rows=21)
    source = Rows(x, y)
    t = trainer()
    t.fit(source, epochs=1, batch_size=5)
    assert [len(rows) for rows in source.taken] == [5, 5, 5, 6]
    assert t.steps_per_epoch(source) == 4


def test_a_batch_larger_than_the_data_is_the_data():
    x, y = blobs(rows=7)
    source = Rows(x, y)
    assert trainer().fit(source, epochs=1, batch_size=100)[0]["steps"] == 1
    assert sorted(source.taken[0]) == list(range(7))


def test_sample_weights_of_a_triple_reach_the_step():
    x, y = blobs(rows=30)
    x2, y2 = np.concatenate([x, -x]), np.concatenate([y, y])
    weights = np.repeat([1.0, 0.0], 30)
    states = []
    for data, batch in (((x, y), 30), ((x2, y2, weights), 60)):
        t = trainer(bn.Sequential(bn.Dense(6, 3), backend="numpy", dtype="float64"), "sgd", learning_rate=0.1)
        t.fit(data, epochs=3, batch_size=batch)
        states.append(t.network.state_dict())
    assert states[0]["0.W"] == pytest.approx(states[1]["0.W"], rel=1e-12)


# -- accumulation ------------------------------------------------------------------------------------------------------


def test_accumulated_micro_batches_make_one_step():
    x, y = blobs(rows=50)
    found = []
    for batch_size, accumulate in ((20, 1), (10, 2), (5, 4)):
        t = trainer(bn.Sequential(bn.Dense(6, 3), backend="numpy", dtype="float64"), "adam", accumulate=accumulate)
        records = t.fit((x, y), epochs=2, batch_size=batch_size)
        assert [r["steps"] for r in records] == [3, 6]
        assert t.steps_per_epoch(Rows(x, y)) == 3
        found.append((t.network.state_dict()["0.W"], records[-1]["train_loss"]))
    for weights, loss in found[1:]:
        assert weights == pytest.approx(found[0][0], rel=1e-10)
        assert loss == pytest.approx(found[0][1], rel=1e-12)


def test_statistics_per_micro_batch_are_updated_that_often():
    x, y = blobs(rows=40)
    t = trainer(bn.Sequential(bn.BatchNorm(6, decay=0.5), bn.Dense(6, 3), backend="numpy", dtype="float64"),
                accumulate=4, statistics="per_micro_batch")  # fmt: skip
    t.fit((x, y), epochs=1, batch_size=10)
    mean = np.zeros(6)
    for rows in np.split(order(40, seed=0, epoch=0), 4):
        mean = 0.5 * mean + 0.5 * x[rows].astype(np.float64).mean(0)
    assert t.network.state_dict()["0.running_mean"] == pytest.approx(mean, rel=1e-12)


# -- freezing ----------------------------------------------------------------------------------------------------------


def test_what_is_frozen_stays_the_same_until_it_is_thawed():
    network = net()
    network.freeze("parameters", "0.W")
    network.freeze("affine", "1")
    before = network_bits(network)
    t = trainer(network, bn.AdamW(weight_decay=0.1))
    t.fit(blobs(), epochs=2, batch_size=16)
    after = network_bits(network)
    kept = {name for name in before if before[name] == after[name]}
    assert kept == {"0.W", "1.gamma", "1.beta"}
    network.thaw("parameters", "0.W")
    network.freeze("statistics")
    t.fit(blobs(), epochs=3, batch_size=16)
    last = network_bits(network)
    assert last["0.W"] != after["0.W"]
    assert {n for n in last if "running" in n and last[n] == after[n]} == {n for n in last if "running" in n}


# -- batches out of Python ---------------------------------------------------------------------------------------------


def listed(rows=60, size=10):
    x, y = blobs(rows=rows)
    return [(x[a : a + size], y[a : a + size]) for a in range(0, rows, size)]


def test_lists_generators_and_iterable_sources_train_alike():
    batches = listed()

    def generate():
        yield from batches

    outcomes = []
    for data in (batches, generate, bn.IterableSource(batches)):
        t = trainer()
        records = t.fit(data, epochs=2, validation=data)
        assert [r["steps"] for r in records] == [6, 12]
        outcomes.append(outcome(t))
    assert outcomes[0] == outcomes[1] == outcomes[2]


def test_micro_batches_of_an_iterable_are_grouped():
    t = trainer(accumulate=4)
    assert [r["steps"] for r in t.fit(listed(), epochs=2)] == [2, 4]


def test_an_exhausted_generator_is_named_with_the_cure():
    with pytest.raises(DataError, match="a function that returns a new generator"):
        trainer().fit((batch for batch in listed()), epochs=2)


def test_a_schedule_that_needs_a_length_says_so():
    t = trainer(learning_rate=bn.schedules.Cosine(0.1))
    with pytest.raises(InputError, match="total_steps is not set"):
        t.fit(listed(), epochs=1)


# -- going on ----------------------------------------------------------------------------------------------------------


def test_a_fit_with_more_epochs_goes_on_and_equals_one_long_fit():
    x, y = blobs()
    long, short = (trainer(net(dropout=0.2), average=bn.Average(0.9)) for _ in range(2))
    long.fit((x, y), epochs=5, batch_size=16, validation=(x, y))
    for epochs in (2, 2, 3, 5):
        records = short.fit((x, y), epochs=epochs, batch_size=16, validation=(x, y))
        assert len(records) == epochs
    assert outcome(long) == outcome(short)


def test_no_epochs_change_nothing():
    x, y = blobs()
    t = trainer(learning_rate=bn.schedules.WarmUp(bn.schedules.Cosine(0.1), 3))
    before = network_bits(t.network)
    assert t.fit((x, y), epochs=0) == []
    assert network_bits(t.network) == before
    whole = trainer(learning_rate=bn.schedules.WarmUp(bn.schedules.Cosine(0.1), 3))
    for one in (t, whole):
        one.fit((x, y), epochs=2, batch_size=30)
    assert outcome(t) == outcome(whole)


def test_the_network_takes_the_preprocessing_of_its_source():
    data = bn.data.Dataset(*blobs())
    preprocessing = bn.Preprocessing.fit(data)
    t = trainer()
    t.fit(bn.ArraySource(data.x, data.y, preprocessing=preprocessing), epochs=1)
    assert t.network.preprocessing is preprocessing


# -- what cannot be used -----------------------------------------------------------------------------------------------


class Bottomless(Rows):
    """A custom source that does not know its length."""

    def __init__(self):
        super().__init__(*blobs())
        self.rows = None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"train": None}, "fit: there is no training data. Pass a Source, or arrays"),
        ({"epochs": -1}, "fit: epochs must be an integer of at least 0, got -1"),
        ({"epochs": 1.5}, "fit: epochs must be an integer of at least 0, got 1.5"),
        ({"batch_size": 0}, "fit: batch_size must be an integer of at least 1, got 0"),
        ({"batch_size": True}, "fit: batch_size must be an integer of at least 1, got True"),
        ({"validation": Rows(np.zeros((0, 6), np.float32), np.zeros(0, int))}, "fit: the validation data has no rows"),
        ({"validation": (np.zeros((0, 6)), np.zeros(0, int))}, "validation: x must have at least one sample"),
        ({"train": Bottomless()}, "does not know its number of rows. Use an IterableSource"),
        ({"train": 3}, "must be an iterable or a callable .*, got 3"),
    ],
)
def test_a_fit_that_cannot_be_says_why_before_anything_changes(options, message):
    t = trainer()
    before = network_bits(t.network)
    with pytest.raises(InputError, match=message):
        t.fit(**{"train": blobs(), "epochs": 1, **options})
    assert network_bits(t.network) == before
    assert t.history == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"accumulate": 0}, "accumulate must be an integer of at least 1, got 0"),
        ({"accumulate": True}, "accumulate must be an integer of at least 1, got True"),
        ({"learning_rate": "fast"}, "learning_rate must be a finite number of at least 0, got 'fast'"),
        ({"learning_rate": -0.1}, "learning_rate must be .* got -0.1"),
        ({"clip_norm": 0.0}, "clip_norm must be a finite number above 0, got 0.0"),
        ({"loss": "hinge"}, "loss: name must .* got 'hinge'"),
        ({"optimizer": "newton"}, "optimizer: name must .* got 'newton'"),
        ({"statistics": "all"}, "statistics must .* got 'all'"),
    ],
)
def test_a_trainer_that_cannot_be_made_says_why(options, message):
    with pytest.raises(InputError, match=message):
        trainer(**options)


def test_an_unknown_progress_is_an_error():
    with pytest.raises(InputError, match=r"Trainer: progress must be .* got 'loud'"):
        trainer(progress="loud").fit(blobs(), epochs=1)


def test_the_evaluation_of_a_trainer_is_that_of_the_network():
    x, y = blobs()
    t = trainer()
    t.fit((x, y), epochs=1)
    assert t.evaluate((x, y)) == evaluate(t.network, t.loss, Rows(x, y))
    with pytest.raises(InputError, match="evaluate: there is no data"):
        t.evaluate(None)


def test_a_batch_is_a_named_tuple():
    batch = Rows(*blobs(rows=4)).take(np.arange(2))
    assert isinstance(batch, Batch)
    assert batch.weights is None


@pytest.mark.parametrize(
    "schedule", [bn.schedules.Cosine(1e-2), bn.schedules.WarmUp(bn.schedules.OneCycle(1e-2), 2)], ids=repr
)
def test_training_on_past_the_end_of_a_schedule_needs_another_rate(schedule):
    t = trainer(learning_rate=schedule)
    t.fit(blobs(rows=20), epochs=2, batch_size=10)
    before = network_bits(t.network)
    with pytest.raises(InputError, match=r"^fit: the schedule .* ended after 4 steps, got 2 more epochs.*at a rate of"):
        t.fit(blobs(rows=20), epochs=4, batch_size=10)
    assert network_bits(t.network) == before
    t.learning_rate = 0.5
    history = t.fit(blobs(rows=20), epochs=4, batch_size=10)
    assert [record["learning_rate"] for record in history[2:]] == [0.5, 0.5]
    assert t.learning_rate == 0.5


def test_a_fit_with_nothing_to_do_says_so(capsys):
    t = trainer(progress="plain")
    t.fit(blobs(), epochs=1)
    t.fit(blobs(), epochs=1)
    said = capsys.readouterr().err
    assert "nothing to train: 1 epochs are done, and epochs=1 asks for that many in total" in said


@pytest.mark.parametrize("name", ["loss", "clip_norm", "optimizer", "average", "kernels"])
def test_what_a_trainer_is_built_from_cannot_be_set_afterwards(name):
    with pytest.raises(InputError, match=f"^Trainer: {name} counts only when the trainer is made, got 0.5 afterwards"):
        setattr(trainer(), name, 0.5)


def test_a_loss_must_write_where_the_step_reads():
    class Elsewhere(bn.MeanSquaredError):
        def __call__(self, output, target, weights, constants, divisor, **_given):
            return super().__call__(output, target, weights, constants, divisor)

    x, _ = blobs()
    with pytest.raises(InputError, match=r"^Step: the loss 'mean_squared_error' must write its value to .*memory="):
        trainer(loss=Elsewhere()).fit((x, x[:, :3]), epochs=1)


def test_one_hot_targets_get_the_cure():
    x, y = blobs()
    with pytest.raises(InputError, match=r"^Step: targets must be a class per row.*argmax"):
        trainer().fit((x, np.eye(3, dtype=int)[y]), epochs=1)
