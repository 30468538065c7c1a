"""Adapted statistics: Chan's merge by NumPy, layer by layer, and an exact undo."""

import numpy as np
import pytest

import bnengine as bn
from bnengine.errors import InputError
from bnengine.inspect import adapt, recalibrate, statistics_of
from bnengine.lab.explain.nets import Training, accuracy, perceptron
from bnengine.lab.explain.setting import Setting
from bnengine.layers import Activation, BatchNorm, Dense
from bnengine.optim.optimizers import SGD
from tests.inspect.nets import filled, moments, normalized


def network_of_two() -> bn.Sequential:
    return filled(Dense(3, 4), BatchNorm(4), Activation("relu"), Dense(4, 3), BatchNorm(3), Dense(3, 2))


@pytest.fixture
def x() -> np.ndarray:
    return np.random.default_rng(3).normal([2, 0, -1], 1, size=(50, 3))


def blended(stored: np.ndarray, new: np.ndarray, prior: float) -> np.ndarray:
    """The stored statistics as those of `prior` rows, and the new ones: sums of values and of squares added up."""
    (_, mean, var), (m, mean_new, var_new) = stored, new
    n = prior + m
    total = (prior * mean + m * mean_new) / n
    squares = (prior * (var + mean**2) + m * (var_new + mean_new**2)) / n
    return np.stack([n, total, squares - total**2])


def test_the_stored_statistics_count_as_prior_samples(x: np.ndarray) -> None:
    network = network_of_two()
    p, old = network.named_parameters(), statistics_of(network)
    done = adapt(network, x, prior=200)
    new = statistics_of(network)
    first = blended(old["1.statistics"], moments(x @ p["0.W"]), 200)
    np.testing.assert_allclose(new["1.statistics"], first, rtol=1e-10)
    hidden = np.maximum(normalized(x @ p["0.W"], first, p["1.gamma"], p["1.beta"]), 0)
    second = blended(old["4.statistics"], moments(hidden @ p["3.W"]), 200)
    np.testing.assert_allclose(new["4.statistics"], second, rtol=1e-10)
    moved = np.sqrt(np.mean((first[1] - old["1.statistics"][1]) ** 2 / old["1.statistics"][2]))
    assert done.layers[0].mean == pytest.approx(moved, rel=1e-10)
    assert [layer.share for layer in done.layers] == [0.2, 0.2]
    assert "layer 1: means moved by" in str(done)


def test_a_prior_of_0_recalibrates_and_a_huge_one_does_nothing(x: np.ndarray) -> None:
    network, other, third = network_of_two(), network_of_two(), network_of_two()
    adapt(network, x, prior=0)
    recalibrate(other, x)
    np.testing.assert_array_equal(network.statistics.array, other.statistics.array)
    before = statistics_of(third)
    adapt(third, x, prior=1e12)
    for name, found in statistics_of(third).items():
        np.testing.assert_allclose(found[1:], before[name][1:], rtol=1e-8, atol=1e-8)


def test_every_position_of_an_image_counts() -> None:
    network = filled(BatchNorm(2), Dense(2, 2))
    old = statistics_of(network)["0.statistics"]
    x = np.random.default_rng(0).normal(size=(5, 3, 4, 2))
    adapt(network, x, prior=7)
    expected = blended(old, moments(x.reshape(-1, 2)), 7 * 12)
    np.testing.assert_allclose(statistics_of(network)["0.statistics"], expected, rtol=1e-10)


def test_undo_restores_the_bytes_of_statistics_and_answers(x: np.ndarray) -> None:
    network = network_of_two()
    state, answers = network.state_dict(), network.predict(x).tobytes()
    done = adapt(network, x, prior=10)
    changed = {name for name, array in network.state_dict().items() if not np.array_equal(array, state[name])}
    assert changed == {f"{place}.running_{kind}" for place in (1, 4) for kind in ("count", "mean", "var")}
    assert network.predict(x).tobytes() != answers
    done.undo()
    assert {name: array.tobytes() for name, array in network.state_dict().items()} == {
        name: array.tobytes() for name, array in state.items()
    }
    assert network.predict(x).tobytes() == answers


def test_adapted_statistics_suit_brighter_images() -> None:
    draw = Setting().centered(0)
    network = perceptron((64, 32, 32, 10), seed=0)
    Training(network, SGD(), draw.x, draw.y, rate=0.1).run(200)
    brighter = draw.x_valid + 2
    clean, shifted = (accuracy(network, x, draw.y_valid) for x in (draw.x_valid, brighter))
    done = adapt(network, brighter, prior=16)
    adapted = accuracy(network, brighter, draw.y_valid)
    done.undo()
    assert shifted < clean - 0.2
    assert adapted > clean - 0.05
    assert accuracy(network, draw.x_valid, draw.y_valid) == clean


@pytest.mark.parametrize("prior", [-1, np.nan, np.inf, "10", True, None])
def test_a_prior_that_is_no_number_of_samples_is_refused(prior: object, x: np.ndarray) -> None:
    network = network_of_two()
    before = network.statistics.array.tobytes()
    with pytest.raises(InputError, match=r"adapt: prior must be a finite number of at least 0, got"):
        adapt(network, x, prior=prior)
    assert network.statistics.array.tobytes() == before


def test_there_must_be_statistics_to_blend_with(x: np.ndarray) -> None:
    network = network_of_two()
    network.reset_statistics()
    with pytest.raises(InputError, match="adapt: layer 1 has no statistics to blend with"):
        adapt(network, x, prior=5)
    adapt(network, x, prior=0).undo()
    assert statistics_of(network)["1.statistics"][0, 0] == 0
