"""Distributions of activations while training: the right numbers, and not one bit of the training changed."""

import json
from pathlib import Path

import numpy as np
import pytest

import bnengine as bn
from bnengine.data import order
from bnengine.errors import InputError
from bnengine.layers import Activation, BatchNorm, Dense, Dropout, Residual
from bnengine.training import Activations, Checkpointing
from bnengine.training.activations import described
from tests.training.support import After, blobs, net, outcome, trainer


def deep(**options):
    """Every kind of layer, with activations that become part of the ones before."""
    body = Dense(8, 8), BatchNorm(8), Activation("tanh"), Dense(8, 8), BatchNorm(8)
    layers = Dense(6, 8), BatchNorm(8), Activation("relu"), Dropout(0.2), Residual(*body), Activation("gelu")
    return bn.Sequential(*layers, Dense(8, 3), **{"backend": "numpy", **options})


def without_samples(found):
    """The outcome of a training but for what was sampled."""
    records = [{k: v for k, v in record.items() if k != "activations"} for record in found["history"]]
    history = [{k: v for k, v in record.items() if k != "activations"} for record in found["values"]["history"]]
    return found | {"history": records, "values": found["values"] | {"callbacks": {}, "history": history}}


@pytest.mark.parametrize("every", [1, 3])
@pytest.mark.parametrize("options", [{}, {"accumulate": 2}, {"resident": False}, {"graph": False}])
def test_training_goes_on_to_the_same_bits(every, options):
    plain, watched = trainer(deep(), **options), trainer(deep(), watch=Activations(every), **options)
    for one in (plain, watched):
        one.fit(blobs(), epochs=3, batch_size=16, validation=blobs(seed=1))
    assert without_samples(outcome(watched)) == without_samples(outcome(plain))
    assert not any("activations" in record for record in plain.history)
    assert [mode.how for mode in watched.step.modes()] == [mode.how for mode in plain.step.modes()]


def test_a_sample_is_what_the_step_saw_computed_by_hand():
    """The first batch through the first weights, in float64: dense, normalized, relu, dense."""
    x, y = blobs(rows=40)
    network = net(seed=3)
    W, V = (np.asarray(network.state_dict()[name], np.float64) for name in ("0.W", "3.W"))
    t = trainer(network, watch="activations")
    t.fit((x, y), epochs=1, batch_size=20)
    batch = x[order(40, seed=3, epoch=0)[:20]].astype(np.float64)
    z = batch @ W
    normalized = (z - z.mean(0)) / np.sqrt(z.var(0) + 1e-5)
    relu = np.maximum(normalized, 0)
    found = t.history[0]["activations"]
    assert found["steps"] == [0, 1]
    assert list(found["layers"]) == ["0", "1", "2", "3"]
    for place, values in zip("0123", (z, normalized, relu, relu @ V), strict=True):
        own, flat = found["layers"][place], values.ravel()
        std = flat.std()
        assert own["mean"][0] == pytest.approx(flat.mean(), abs=1e-6)
        assert own["std"][0] == pytest.approx(std, rel=1e-5)
        assert own["skewness"][0] == pytest.approx(np.mean((flat - flat.mean()) ** 3) / std**3, abs=1e-5)
        assert own["kurtosis"][0] == pytest.approx(np.mean((flat - flat.mean()) ** 4) / std**4, rel=1e-5)
        for percent in (15, 50, 85):
            assert own[f"p{percent}"][0] == pytest.approx(np.percentile(flat, percent), abs=1e-6)
        assert own["dead"][0] == 0
    assert abs(found["layers"]["1"]["mean"][0]) < 1e-6
    assert found["layers"]["1"]["std"][0] == pytest.approx(1, abs=1e-4)


def test_layers_have_their_names_in_the_users_list():
    t = trainer(deep(), watch="activations")
    t.fit(blobs(), epochs=1, batch_size=32)
    kept = t.history[0]["activations"]["layers"]
    assert list(kept) == ["0", "1", "2", "4.0", "4.1", "4.2", "4.3", "4.4", "5", "6"]
    assert max(abs(v) for v in (*kept["4.2"]["p15"], *kept["4.2"]["p85"])) <= 1  # tanh
    assert min(kept["5"]["p15"]) > -0.18  # gelu


def test_dead_units_are_those_of_one_value():
    y = np.asarray([[0.0, 1.0, -2.0, 5.0], [0.0, 1.5, -2.0, 4.0], [0.0, 1.0, -2.0, 3.0]], np.float32)
    assert described(y)["dead"] == 0.5
    constant = described(np.full((4, 3), 0.1, np.float32))
    assert (constant["dead"], constant["std"], constant["skewness"], constant["kurtosis"]) == (1, 0, 0, 0)


def test_moments_of_values_by_hand():
    """0, 0, 0, 4: mean 1, variance 3, third moment (3 (-1) + 27)/4 = 6, fourth (3 + 81)/4 = 21."""
    found = described(np.asarray([[0.0], [0.0], [0.0], [4.0]]))
    assert (found["mean"], found["std"]) == (1, pytest.approx(3**0.5))
    assert found["skewness"] == pytest.approx(6 / 3**1.5)
    assert found["kurtosis"] == pytest.approx(21 / 9)
    assert (found["p15"], found["p50"], found["p85"]) == (0, 0, pytest.approx(4 * 0.55))


def test_large_outputs_are_described_by_their_first_rows():
    y = np.zeros((20_000, 2), np.float32)
    y[-1, 0], y[:100, 1] = 1, 3
    found = described(y)
    assert found["dead"] == 0
    assert found["mean"] == pytest.approx(3 * 100 / 16_384)


def test_the_steps_that_are_sampled():
    t = trainer(watch=Activations(every=30))
    t.fit(blobs(rows=96), epochs=5, batch_size=6)
    assert [record.get("activations", {}).get("steps") for record in t.history] == [
        [0, 1, 2, 5, 10], [20, 30], None, [60], None,
    ]  # fmt: skip


def test_a_resumed_training_samples_as_if_it_had_not_stopped(tmp_path: Path):
    def made():
        return trainer(deep(), watch=Activations(every=4), callbacks=[Checkpointing(tmp_path / "m.safetensors")])

    whole = made()
    whole.fit(blobs(), epochs=3, batch_size=16)
    stopped = made()
    stopped.callbacks.insert(0, After(9, lambda t: t.save(tmp_path / "within.safetensors")))
    stopped.fit(blobs(), epochs=2, batch_size=16)
    resumed = made()
    resumed.resume(tmp_path / "within.safetensors")
    resumed.fit(blobs(), epochs=3, batch_size=16)
    assert without_samples(outcome(resumed)) == without_samples(outcome(whole))
    sampled = [[record["activations"] for record in t.history] for t in (resumed, whole)]
    assert sampled[0] == sampled[1]
    assert sampled[0][1]["steps"] == [8]  # taken before the checkpoint, within the epoch


def test_records_are_json_also_of_nonfinite_values(tmp_path: Path):
    x, y = blobs()
    network = net()
    network.named_parameters()["0.W"][0, 0] = np.inf
    t = trainer(network, watch="activations")
    t.fit((x, y), epochs=1, batch_size=30)
    assert not np.isfinite(t.history[0]["activations"]["layers"]["0"]["std"][0])
    t.save(tmp_path / "m.safetensors")
    arrays, values = t.state()
    json.dumps(values, allow_nan=False)
    again = trainer(net(), watch="activations")
    again.load_state(arrays, values)
    assert repr(again.history[0]["activations"]) == repr(t.history[0]["activations"])


@pytest.mark.parametrize("precision", ["float64", "float32"])
def test_batches_of_an_iterable_are_sampled_too(precision):
    x, y = blobs()

    def batches():
        yield from ((x[a : a + 30], y[a : a + 30]) for a in (0, 30, 60))

    by_iterable = trainer(net(dtype=precision), watch=Activations(1))
    by_iterable.fit(batches, epochs=1, batch_size=30)
    direct = described(np.asarray(x[:30], precision) @ net(dtype=precision).state_dict()["0.W"])
    found = by_iterable.history[0]["activations"]["layers"]["0"]
    assert {name: values[0] for name, values in found.items()} == pytest.approx(direct, rel=1e-5, abs=1e-6)


@pytest.mark.parametrize("every", [0, -1, 1.5, True])
def test_mistakes_are_errors(every):
    with pytest.raises(InputError, match=r"Activations: every must be an integer of at least 1"):
        Activations(every)
    with pytest.raises(InputError, match="Trainer: watch must be 'activations', got 'weights'"):
        trainer(watch="weights")
