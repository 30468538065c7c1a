"""The learning rates that the steps of a fit use: each schedule's, one for each successful step."""

import numpy as np
import pytest

import bnengine as bn
from bnengine.data import order
from bnengine.errors import InputError
from bnengine.optim.schedules import Constant, Cosine, OneCycle, Plateau, Step, WarmUp
from bnengine.training import Callback
from tests.training.support import Rows, blobs, net, trainer

STEPS = 5  # to an epoch of 20 rows by 4


class Moves(Callback):
    """How far plain SGD moved the weights at each step, over its gradient: the rate, or 0 for a skipped step."""

    def __init__(self):
        self.rates, self.before = [], None

    def fit_begins(self, trainer):
        self.before = trainer.network.state_dict()["0.W"]

    def step_ends(self, trainer):
        after, report = trainer.network.state_dict()["0.W"], trainer.step.report()
        moved = np.linalg.norm(after - self.before)
        self.rates.append(float(moved / report.norm) if report.ok else 0.0)
        self.before = after


def rates_used(schedule, epochs=3, data=None, **options):
    x, y = blobs(rows=20)
    moves = Moves()
    network = bn.Sequential(bn.Dense(6, 3, bias=False), backend="numpy", dtype="float64")
    t = trainer(network, "sgd", learning_rate=schedule, callbacks=[moves], **options)
    t.fit(data or Rows(x.astype(np.float64), y), epochs=epochs, batch_size=4)
    return moves.rates, t


@pytest.mark.parametrize(
    "schedule",
    [
        Constant(0.1), Step(0.1, 4), Cosine(0.1), Cosine(0.1, 9), OneCycle(0.1), OneCycle(0.1, anneal="linear"),
        WarmUp(Constant(0.1), 3), WarmUp(Cosine(0.1, floor=0.01), 4), WarmUp(OneCycle(0.2), 2, 0.01),
    ],
    ids=repr,
)  # fmt: skip
def test_each_step_of_a_fit_uses_the_schedules_rate_for_it(schedule):
    rates, t = rates_used(schedule)
    expected = schedule.resolved(3 * STEPS).for_steps(0, 3 * STEPS)
    assert rates == pytest.approx(expected, rel=1e-9, abs=1e-12)
    assert [r["learning_rate"] for r in t.history] == [expected[4], expected[9], expected[14]]


def test_accumulated_micro_batches_use_one_rate_a_step():
    schedule = Cosine(0.1)
    rates, _ = rates_used(schedule, accumulate=2)
    assert rates == pytest.approx(schedule.resolved(9).for_steps(0, 9), rel=1e-9)


def test_batches_of_unknown_number_use_the_rates_in_turn():
    x, y = blobs(rows=20)
    batches = [(x[a : a + 4], y[a : a + 4]) for a in range(0, 20, 4)]
    for schedule in (Step(0.1, 4), Cosine(0.1, 12)):
        rates, _ = rates_used(schedule, data=batches)
        assert rates == pytest.approx(schedule.for_steps(0, 15), rel=1e-9, abs=1e-12)


def test_a_skipped_step_uses_no_rate_up():
    """The step after it gets the rate that it would have had."""
    x, y = blobs(rows=20)
    source = Rows(x.astype(np.float64), y)
    source.x[order(20, seed=0, epoch=0)[9]] = np.nan  # in the third batch of the first epoch, and once in each other
    schedule = Cosine(0.1, 15)
    rates, t = rates_used(schedule, data=source)
    assert [(r["steps"], r["skipped_steps"]) for r in t.history] == [(4, 1), (8, 2), (12, 3)]
    assert rates.index(0.0) == 2
    assert [rate for rate in rates if rate > 0] == pytest.approx(schedule.for_steps(0, 12), rel=1e-9)
    assert t.history[-1]["learning_rate"] == schedule.rate(11)


def test_a_plateau_sees_the_validation_loss():
    x, y = blobs(rows=40)
    plateau = Plateau(0.5, factor=0.1, patience=0, threshold=0.0)
    t = trainer(net(), "sgd", learning_rate=plateau)
    records = t.fit((x, y), epochs=25, batch_size=8, validation=(x[:10], 2 - y[:10]))
    twin = Plateau(0.5, factor=0.1, patience=0, threshold=0.0)
    for record in records:
        assert record["learning_rate"] == twin.rate(0)
        twin.observe(record["valid_loss"])
    assert records[-1]["learning_rate"] < 0.5


def test_a_plateau_without_validation_sees_the_training_loss():
    x, y = blobs(rows=40)
    t = trainer(net(), "sgd", learning_rate=WarmUp(Plateau(1.0, factor=0.5, patience=0, threshold=0.5), 2))
    records = t.fit((x, y), epochs=4, batch_size=8)
    twin = Plateau(1.0, factor=0.5, patience=0, threshold=0.5)
    for record in records:
        assert record["learning_rate"] == twin.rate(0)
        twin.observe(record["train_loss"])
    assert records[-1]["learning_rate"] < 1.0


@pytest.mark.parametrize("validation", [None, "given"])
def test_a_plateau_whose_best_is_the_highest_sees_the_accuracy(validation):
    x, y = blobs(rows=40)
    options = {"factor": 0.5, "patience": 0, "best": "highest"}
    t = trainer(net(), "sgd", learning_rate=WarmUp(Plateau(0.5, **options), 2))
    records = t.fit((x, y), epochs=6, batch_size=8, validation=(x[:20], y[:20]) if validation else None)
    twin = Plateau(0.5, **options)
    for record in records:
        assert record["learning_rate"] == twin.rate(0)
        twin.observe(record["valid_accuracy" if validation else "train_accuracy"])
    assert records[-1]["learning_rate"] < 0.5


def test_a_plateau_on_an_accuracy_that_there_is_not_is_an_error():
    x, _ = blobs()
    t = trainer(net(outputs=1), loss="mean_squared_error", learning_rate=Plateau(0.1, best="highest"))
    with pytest.raises(InputError, match=r"fit: Plateau\(.* monitors the accuracy, which a regression lacks"):
        t.fit((x, x[:, 0]), epochs=1)
