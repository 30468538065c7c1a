"""The gap: each planted cause is named, healthy networks are called healthy, and figures agree with NumPy."""

import json
from itertools import pairwise
from math import sqrt
from typing import NamedTuple

import numpy as np
import pytest

import bnengine as bn
from bnengine.errors import InputError
from bnengine.inspect import Gap, gap, recalibrate
from bnengine.lab.explain.nets import Training, perceptron
from bnengine.lab.explain.setting import Setting
from bnengine.layers import Activation, BatchNorm, Dense, Dropout, Layer
from bnengine.optim.optimizers import SGD, Adam, Optimizer
from tests.inspect.nets import filled, moments

SETTING = Setting()


class Plan(NamedTuple):
    """A training on centered digits, and changes of its data: a 64-32-32-10 network unless said otherwise."""

    decay: float | None = 0.9
    steps: int = 300
    rate: float = 0.1
    batch: int = 64
    optimizer: type[Optimizer] = SGD
    widths: tuple[int, ...] = (64, 32, 32, 10)
    activation: str = "relu"
    inputs: float = 0.0  # added to all inputs
    last: tuple[int, float] = (0, 0.0)  # more steps, at another rate
    dropout: float = 0.0
    scale: float = 1.0  # of the judged data
    offset: float = 0.0  # added to them


def planted(plan: Plan, seed: int, *, labeled: bool = True) -> Gap:
    draw = SETTING.centered(seed)
    x, x_valid = draw.x + plan.inputs, (draw.x_valid + plan.inputs) * plan.scale + plan.offset
    network = network_of(plan, seed)
    for steps, rate in ((plan.steps, plan.rate), plan.last):
        if steps:
            Training(network, plan.optimizer(), x, draw.y, rate=rate, batch=plan.batch, seed=seed).run(steps)
    data = (x_valid, draw.y_valid) if labeled else x_valid
    return gap(network, data, training=(x, draw.y), batch_size=plan.batch)


def network_of(plan: Plan, seed: int) -> bn.Sequential:
    layers: list[Layer] = []
    for inputs, width in pairwise(plan.widths[:-1]):
        layers += [Dense(inputs, width), BatchNorm(width, decay=plan.decay), Activation(plan.activation)]
        layers += [Dropout(plan.dropout)] if plan.dropout else []
    return bn.Sequential(*layers, Dense(*plan.widths[-2:]), seed=seed)


CASES = {
    "30 steps of a decay of 0.99": ("not converged", Plan(decay=0.99, steps=30)),
    "300 steps of a decay of 0.999": ("not converged", Plan(decay=0.999)),
    "inputs + 10, decay 0.99": ("uncentred inputs", Plan(decay=0.99, inputs=10)),
    "inputs + 100": ("uncentred inputs", Plan(inputs=100)),
    "twenty last steps at thirty times the rate": (
        "weights moving faster than the average",
        Plan(decay=0.99, steps=500, last=(20, 3.0)),
    ),
    "batches of two": ("small batches", Plan(batch=2, steps=1000)),
    "batches of four": ("small batches", Plan(batch=4, steps=1000)),
    "dropout between two batch norms": ("dropout", Plan(dropout=0.8, widths=(64, 64, 64, 10))),
    "half the contrast": ("data shift", Plan(scale=0.5)),
    "brighter": ("data shift", Plan(offset=1.5)),
    "a healthy network": ("none", Plan()),
    "a healthy deep one": ("none", Plan(widths=(64, 32, 32, 32, 32, 10))),
    "a healthy one of sigmoids": ("none", Plan(activation="sigmoid")),
    "a healthy one by Adam, exact averages": ("none", Plan(decay=None, rate=0.003, optimizer=Adam, steps=600)),
    "a healthy one of batches of 16": ("none", Plan(batch=16)),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_a_planted_cause_is_named_in_nine_of_ten_seeds(name: str) -> None:
    expected, plan = CASES[name]
    found = [planted(plan, seed).cause for seed in range(10)]
    assert found.count(expected) >= 9, found


def test_a_recalibrated_network_has_no_gap_left() -> None:
    draw = SETTING.centered(0)
    network = perceptron((64, 32, 32, 10), decay=0.999, seed=0)
    Training(network, SGD(), draw.x, draw.y, rate=0.1).run(100)
    assert gap(network, (draw.x, draw.y)).cause == "not converged"
    recalibrate(network, draw.x)
    found = gap(network, (draw.x, draw.y))
    assert found.cause == "none"
    assert found.layers[0].running.size < 1e-6
    assert found.layers[0].initial == 0
    assert found.layers[0].remembered == found.layers[0].steps


def test_unlabeled_data_show_a_shift_by_their_distance_alone() -> None:
    found = planted(Plan(offset=1.5), 0, labeled=False)
    assert found.cause == "data shift"
    assert ("data", "running") not in found.scores
    assert planted(Plan(), 0, labeled=False).cause == "none"


def test_what_an_average_remembers_is_that_of_its_weights() -> None:
    """24 steps of decay 0.75: weights 0.25 0.75^k, and 0.75^24 on the start."""
    draw = SETTING.centered(0)
    network = perceptron((64, 8, 10), decay=0.75, seed=0)
    Training(network, SGD(), draw.x, draw.y, rate=0.1, batch=32).run(24)
    (layer,) = gap(network, (draw.x, draw.y), batch_size=32).layers
    weights = 0.25 * 0.75 ** np.arange(24)
    assert layer.steps == pytest.approx(24, rel=1e-12)
    assert layer.initial == pytest.approx(0.75**24, rel=1e-12)
    assert layer.remembered == pytest.approx(weights.sum() ** 2 / (weights**2).sum(), rel=1e-12)
    assert (layer.name, layer.channels, layer.decay) == ("1", 8, 0.75)
    halves = gap(network, (draw.x, draw.y), batch_size=8, accumulate=2).layers[0]
    assert halves.steps == pytest.approx(48, rel=1e-12)


def test_steps_that_are_known_count_where_the_rows_agree() -> None:
    """Three epochs of 100 rows in batches of 64 and 36: six steps, though 300 rows are 4.7 times 64."""
    draw = SETTING.centered(0)
    x, y = draw.x[:100].astype(np.float32), draw.y[:100]
    network = perceptron((64, 8, 10), decay=0.75, seed=0)
    bn.Trainer(network, "sgd", learning_rate=0.1, progress="quiet").fit((x, y), epochs=3, batch_size=64)
    for taken, steps in ((None, 300 / 64), (6, 6), (3, 300 / 64), (8, 300 / 64)):
        (layer,) = gap(network, (x, y), batch_size=64, steps=taken).layers
        assert layer.steps == pytest.approx(steps, rel=1e-12)
        assert layer.initial == pytest.approx(0.75**steps, rel=1e-12)
    recalibrate(network, x)
    (layer,) = gap(network, (x, y), batch_size=64, steps=6).layers
    assert layer.steps == pytest.approx(100 / 64, rel=1e-12)


def test_distances_and_scores_are_those_of_numpy() -> None:
    network = filled(Dense(3, 4), BatchNorm(4), Dense(4, 1))
    rng = np.random.default_rng(0)
    x, other = rng.normal([0, 3, 4], 1, size=(80, 3)), rng.normal(size=(60, 3))
    y, y_other = rng.normal(size=(80, 1)), rng.normal(size=(60, 1))
    found = gap(network, (other, y_other), training=(x, y), batch_size=16)
    p = network.named_parameters()
    exact, own, running = moments(x @ p["0.W"]), moments(other @ p["0.W"]), network.named_statistics()["1.statistics"]
    sigma = np.sqrt(exact[2] + 1e-5)
    (layer,) = found.layers
    for off, statistics in ((layer.running, running), (layer.data, own)):
        assert off.mean == pytest.approx(sqrt(np.mean(((statistics[1] - exact[1]) / sigma) ** 2)), rel=1e-9)
        assert off.std == pytest.approx(sqrt(np.mean((np.sqrt(statistics[2] + 1e-5) / sigma - 1) ** 2)), rel=1e-9)
    assert found.offset == pytest.approx(sqrt((x.mean(0) ** 2).sum() / x.var(0).sum()), rel=1e-9)
    for rows, kind, statistics, (a, b) in (
        ("training", "running", running, (x, y)),
        ("training", "exact", exact, (x, y)),
        ("data", "exact of training", exact, (other, y_other)),
        ("data", "their own", own, (other, y_other)),
    ):
        z = p["1.gamma"] * (a @ p["0.W"] - statistics[1]) / np.sqrt(statistics[2] + 1e-5) + p["1.beta"]
        loss = np.mean((z @ p["2.W"] + p["2.b"] - b) ** 2)
        assert found.scores[rows, kind].loss == pytest.approx(loss, rel=1e-9)
        assert found.scores[rows, kind].accuracy is None


def test_the_result_is_text_and_json() -> None:
    found = planted(Plan(decay=0.999), 0)
    values = json.loads(json.dumps(found.to_json(), allow_nan=False))
    assert values["cause"] == "not converged"
    assert values["layers"][0]["running"]["mean"] == found.layers[0].running.mean
    assert {(row["rows"], row["statistics"]) for row in values["scores"]} == set(found.scores)
    text = str(found)
    assert text.startswith("cause: not converged\n")
    assert "recalibrate" in text
    assert "each batch of 64" in text
    assert "running off by" in text


def test_the_network_does_not_change() -> None:
    draw = SETTING.centered(0)
    network = perceptron((64, 8, 10), decay=0.99, seed=0)
    Training(network, SGD(), draw.x, draw.y, rate=0.1).run(10)
    before = {name: array.tobytes() for name, array in network.state_dict().items()}
    gap(network, (draw.x_valid, draw.y_valid), training=(draw.x, draw.y))
    assert {name: array.tobytes() for name, array in network.state_dict().items()} == before


def test_mistakes_have_a_cure() -> None:
    x, y = np.random.default_rng(0).normal(size=(40, 3)), np.arange(40) % 2
    network = bn.Sequential(Dense(3, 4), BatchNorm(4), Activation("relu"), Dropout(0.1), Dense(4, 2))
    for given, data, options, message in (
        (bn.Sequential(Dense(3, 2)), (x, y), {}, "has no BatchNorm"),
        (network, (x, y), {}, "no statistics"),
        (network, x, {}, "gap: the training data have no targets"),
        (network, None, {"training": (x, y)}, "gap: there is no data"),
    ):
        with pytest.raises(InputError, match=message):
            gap(given, data, **options)
