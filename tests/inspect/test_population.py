"""Exact statistics, layer by layer: against NumPy in float64, in any order and batches, through any structure."""

import numpy as np
import pytest

import bnengine as bn
from bnengine.data import ArraySource, Dataset, IterableSource, Preprocessing
from bnengine.errors import InputError
from bnengine.inspect import population, recalibrate, restore, statistics_of
from bnengine.layers import Activation, BatchNorm, Dense, Dropout, Residual
from tests.inspect.nets import filled, moments, normalized


def two_layers(dtype: str = "float64") -> bn.Sequential:
    return filled(
        Dense(3, 5), BatchNorm(5), Activation("tanh"), Dropout(0.5), Dense(5, 4, bias=True), BatchNorm(4), Dense(4, 2),
        dtype=dtype,
    )  # fmt: skip


@pytest.fixture
def x() -> np.ndarray:
    return np.random.default_rng(1).normal(size=(2100, 3)) * [1, 5, 0.1] + [0, 100, -3]


def test_each_layer_sees_exact_statistics_before_it(x: np.ndarray) -> None:
    network = two_layers()
    p = network.named_parameters()
    first = moments(x @ p["0.W"])
    hidden = np.tanh(normalized(x @ p["0.W"], first, p["1.gamma"], p["1.beta"]))
    second = moments(hidden @ p["4.W"] + p["4.b"])
    found = population(network, x)
    np.testing.assert_allclose(found["1.statistics"], first, rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(found["5.statistics"], second, rtol=1e-10, atol=1e-12)


def test_order_and_sizes_of_batches_do_not_matter(x: np.ndarray) -> None:
    network = two_layers()
    expected = population(network, x)
    shuffled = np.random.default_rng(2).permutation(x)
    parts = np.split(shuffled, [1, 500, 501, 502, 2000])
    batches = IterableSource([(part, np.zeros(len(part), np.int64)) for part in parts], dtype="float64")
    for data in (shuffled, (shuffled, None), ArraySource(shuffled, None, dtype="float64"), batches):
        for name, found in population(network, data).items():
            np.testing.assert_allclose(found, expected[name], rtol=1e-10, atol=1e-12)


def test_a_residual_body_sees_exact_statistics_before_it(x: np.ndarray) -> None:
    network = filled(
        Dense(3, 4), BatchNorm(4), Residual(Activation("relu"), Dense(4, 4), BatchNorm(4)), Activation("relu"),
        Dense(4, 4), BatchNorm(4),
    )  # fmt: skip
    p = network.named_parameters()
    found = population(network, x)
    entry = normalized(x @ p["0.W"], moments(x @ p["0.W"]), p["1.gamma"], p["1.beta"])
    body = np.maximum(entry, 0) @ p["2.1.W"]
    np.testing.assert_allclose(found["2.2.statistics"], moments(body), rtol=1e-10, atol=1e-12)
    output = np.maximum(entry + normalized(body, moments(body), p["2.2.gamma"], p["2.2.beta"]), 0) @ p["4.W"]
    np.testing.assert_allclose(found["5.statistics"], moments(output), rtol=1e-10, atol=1e-12)


def test_raw_data_go_through_the_preprocessing(x: np.ndarray) -> None:
    network = two_layers()
    raw = Dataset(x=x, y=np.arange(len(x)) % 2)
    with pytest.raises(InputError, match=r"population: the network has no preprocessing"):
        population(network, raw)
    network.preprocessing = Preprocessing.fit(raw)
    ready = network.preprocessing.inputs(x, "float64", name="x", rows=np.arange(len(x)))
    for name, found in population(network, raw).items():
        np.testing.assert_array_equal(found, population(network, ready)[name])


def test_the_network_does_not_change_frozen_or_not(x: np.ndarray) -> None:
    network = two_layers("float32")
    network.freeze("statistics", "1")
    before, frozen = network.state_dict(), network.frozen()
    found = population(network, x)
    assert network.frozen() == frozen
    for name, array in network.state_dict().items():
        np.testing.assert_array_equal(array, before[name])
    assert found["1.statistics"][0, 0] == len(x)


def test_recalibrated_outputs_have_mean_beta_and_std_gamma(x: np.ndarray) -> None:
    network = two_layers()
    old = recalibrate(network, x)
    p = network.named_parameters()
    z = normalized(x @ p["0.W"], statistics_of(network)["1.statistics"], p["1.gamma"], p["1.beta"])
    np.testing.assert_allclose(z.mean(axis=0), p["1.beta"], atol=1e-9)
    np.testing.assert_allclose(z.std(axis=0), np.abs(p["1.gamma"]), rtol=1e-4)
    restore(network, old)
    assert all(np.array_equal(found, old[name]) for name, found in statistics_of(network).items())


def test_recalibrated_evaluation_is_training_on_one_batch(x: np.ndarray) -> None:
    network = two_layers()
    together = network.forward(x, training=True, dropout=False).output
    assert np.max(np.abs(network.predict(x) - together)) > 0.1
    recalibrate(network, x)
    np.testing.assert_allclose(network.predict(x), together, rtol=1e-9, atol=1e-9)


def test_mistakes_change_nothing(x: np.ndarray) -> None:
    network = two_layers()
    before = network.state_dict()
    for given, data, message in (
        (network, x[:1], "recalibrate: a variance needs two rows, got 1"),
        (network, None, "recalibrate: there is no data"),
        (network, x[:, :2], "Dense.*the input must have . features, got 2"),
        (filled(Dense(3, 2)), x, "has no BatchNorm"),
    ):
        with pytest.raises(InputError, match=message):
            recalibrate(given, data)
    assert all(np.array_equal(array, before[name]) for name, array in network.state_dict().items())
