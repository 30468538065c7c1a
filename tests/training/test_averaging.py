"""Averages of the weights: taken after each step, evaluated in place of the weights, with their own statistics."""

import numpy as np
import pytest

import bnengine as bn
from bnengine.errors import InputError
from bnengine.training.averaging import averaged_weights, recompute_statistics, recomputed_statistics
from bnengine.training.evaluation import evaluate
from tests.training.support import Rows, blobs, net, network_bits, trainer


def averages(t):
    return t.network.export(*t.step.state.averaged)


def test_the_average_follows_every_step_by_its_decay():
    network = net(dtype="float64", dropout=0.2)
    states = [network.state_dict()]
    t = trainer(network, average=bn.Average(0.75))
    t.step.schedule([0.05])
    source = Rows(*blobs())
    for i in range(6):
        t.step([source.take(np.arange(i * 10, i * 10 + 10))])
        states.append(network.state_dict())
    for name, found in averages(t).items():
        expected = states[0][name]
        for state in states[1:]:
            expected = 0.75 * expected + 0.25 * state[name]
        assert found == pytest.approx(expected, rel=1e-13, abs=1e-15), name


@pytest.mark.parametrize("statistics", ["averaged", "recomputed"])
def test_validation_sees_the_averages_and_restores_the_weights(statistics):
    x, y = blobs()
    t = trainer(net(), average=bn.Average(0.9, statistics=statistics), learning_rate=0.05)
    plain = trainer(net(), learning_rate=0.05)
    record, raw = (one.fit((x, y), epochs=2, batch_size=15, validation=(x, y))[-1] for one in (t, plain))
    assert network_bits(t.network) == network_bits(plain.network)
    assert record["valid_loss"] != raw["valid_loss"]
    other = net()
    other.load_state_dict(averages(t))
    assert record["valid_loss"] == evaluate(other, t.loss, Rows(x, y))["loss"] == t.evaluate((x, y))["loss"]


def test_averaged_weights_are_taken_back_after_an_error_too():
    t = trainer(average=bn.Average(0.9))
    t.fit(blobs(), epochs=1)
    own, other = network_bits(t.network), {name: array.tobytes() for name, array in averages(t).items()}
    assert own != other
    with averaged_weights(t.step):
        assert network_bits(t.network) == other
    with pytest.raises(ZeroDivisionError), averaged_weights(t.step):
        raise ZeroDivisionError
    assert network_bits(t.network) == own
    plain = trainer()
    before = network_bits(plain.network)
    with averaged_weights(plain.step):
        assert network_bits(plain.network) == before


def test_recomputed_statistics_are_those_of_a_pass_over_the_data():
    x, y = blobs(rows=64)
    network = net(dtype="float64", dropout=0.4)
    t = trainer(network, average=bn.Average(0.9, statistics="recomputed"))
    t.fit((x, y), epochs=2, batch_size=16)
    state = averages(t)
    h = x.astype(np.float64) @ state["0.W"]
    assert state["1.running_count"].tolist() == [64.0] * 8
    assert state["1.running_mean"] == pytest.approx(h.mean(0), rel=1e-12, abs=1e-13)
    assert state["1.running_var"] == pytest.approx(h.var(0), rel=1e-12)


def test_deeper_statistics_are_recomputed_without_dropout():
    x, y = blobs(rows=40)
    network = bn.Sequential(
        bn.BatchNorm(6),
        bn.Dropout(0.5),
        bn.Dense(6, 4),
        bn.BatchNorm(4),
        bn.Dense(4, 3),
        backend="numpy",
        dtype="float64",
    )
    t = trainer(network)
    t.fit((x, y), epochs=1, batch_size=10)
    found = recomputed_statistics(network, Rows(x, y), 10)
    state, wide, deep = network.state_dict(), x.astype(np.float64), []
    for rows in np.split(wide, 4):
        z = (rows - rows.mean(0)) / np.sqrt(rows.var(0) + 1e-5) * state["0.gamma"] + state["0.beta"]
        deep.append(z @ state["2.W"])
    handle = network.named_handles()["3.statistics"]
    a = network.statistics.offsets[handle]
    count, mean, var = found[:, a : a + 4]
    assert count.tolist() == [40.0] * 4
    assert mean == pytest.approx(np.concatenate(deep).mean(0), rel=1e-11, abs=1e-13)
    assert var == pytest.approx(np.concatenate(deep).var(0), rel=1e-11)


def test_frozen_statistics_are_not_recomputed():
    network = net()
    t = trainer(network, average=bn.Average(0.5, statistics="recomputed"))
    t.fit(blobs(), epochs=1)
    network.freeze("statistics")
    before = averages(t)
    t.fit(blobs(), epochs=2)
    after = averages(t)
    assert (before["1.running_count"] == 90).all()
    assert not np.array_equal(after["0.W"], before["0.W"])
    # The average of frozen running statistics moves towards them; a pass over the data would give other ones.
    assert np.isfinite(after["1.running_var"]).all()
    assert not np.allclose(after["1.running_mean"], (blobs()[0] @ after["0.W"]).mean(0))


def test_an_iterable_is_walked_again_to_recompute_statistics():
    x, y = blobs(rows=40)
    walks = []

    def generate():
        walks.append(1)
        yield from ((x[a : a + 10], y[a : a + 10]) for a in range(0, 40, 10))

    t = trainer(net(dtype="float64"), average=bn.Average(0.9, statistics="recomputed"))
    t.fit(generate, epochs=2)
    assert len(walks) == 4
    assert averages(t)["1.running_mean"] == pytest.approx(
        (x.astype(np.float64) @ averages(t)["0.W"]).mean(0), rel=1e-12
    )


def test_refresh_leaves_averaged_statistics_and_no_average_alone():
    for average in (None, bn.Average(0.9)):
        t = trainer(average=average)
        t.fit(blobs(), epochs=1)
        before = {name: a.tobytes() for name, a in t.step.state_dict().items()}
        recompute_statistics(t.step, Rows(*blobs()), 10)
        assert {name: a.tobytes() for name, a in t.step.state_dict().items()} == before


def test_a_network_without_statistics_can_be_averaged():
    network = bn.Sequential(bn.Dense(6, 3), backend="numpy")
    t = trainer(network, average=bn.Average(0.5, statistics="recomputed"))
    record = t.fit(blobs(), epochs=1, validation=blobs())[-1]
    assert np.isfinite(record["valid_loss"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"decay": 1.0}, r"decay must be .* below 1, got 1\.0"),
        ({"statistics": "none"}, "statistics must be 'averaged' or 'recomputed', got 'none'"),
    ],
)
def test_an_average_that_makes_no_sense_is_refused(options, message):
    with pytest.raises(InputError, match=message):
        bn.Average(**options)
