"""BatchNorm's formula, options and errors; what becomes of its statistics is in test_batch_norm_statistics.py."""

import numpy as np
import pytest

from bnengine.errors import InputError
from bnengine.layers import Activation, BatchNorm
from bnengine.network.sequential import Sequential
from bnengine.ops.activations import NONLINEAR
from tests.network.support import batch, network_bits, only, running, statistics_of, step_of


def oracle(x, gamma=1.0, beta=0.0, eps=1e-5):
    """Equations (1) to (4) in float64."""
    rows = tuple(range(x.ndim - 1))
    return gamma * (x - x.mean(rows)) / np.sqrt(x.var(rows) + eps) + beta


@pytest.mark.parametrize(("gamma", "beta"), [(True, True), (True, False), (False, True), (False, False)])
@pytest.mark.parametrize("shape", [(7, 3), (2, 3), (2, 3, 4, 3), (1, 2, 3)])
def test_training_normalizes_by_the_biased_moments_of_the_batch(rng, shape, gamma, beta):
    network = only(BatchNorm(3, gamma=gamma, beta=beta, eps=0.5))
    values = {name: rng.standard_normal(3) for name in network.named_parameters()}
    assert list(values) == ["0.gamma"] * gamma + ["0.beta"] * beta
    assert {name: a[0] for name, a in network.named_parameters().items()}.items() <= {"0.gamma": 1, "0.beta": 0}.items()
    for name, value in values.items():
        network.named_parameters()[name][...] = value
    x = rng.standard_normal(shape) * 3 + 5
    forward = network.forward(x, training=True)
    expected = oracle(x, values.get("0.gamma", 1.0), values.get("0.beta", 0.0), 0.5)
    np.testing.assert_allclose(forward.output, expected, rtol=0, atol=1e-13)
    np.testing.assert_allclose(forward.pending.array[:, :3], statistics_of(x), rtol=1e-13)
    network.named_statistics()["0.statistics"][...] = statistics_of(x)
    np.testing.assert_allclose(network.predict(x), expected, rtol=0, atol=1e-13)


def test_neither_gamma_nor_beta_decays():
    layer = BatchNorm(4)
    assert (layer.gamma.decays, layer.beta.decays) == (False, False)


@pytest.mark.parametrize("kind", NONLINEAR)
def test_one_activation_after_it_is_fused_and_changes_nothing(rng, kind):
    x, after = rng.standard_normal((8, 3)), Activation(kind, slope=0.3)
    together = Sequential(BatchNorm(3), after, Activation("tanh"), backend="numpy", dtype="float64")
    apart = Sequential(after, Activation("tanh"), backend="numpy", dtype="float64")
    assert len(together.fused) == 2
    np.testing.assert_allclose(together.forward(x, training=True).output, apart.predict(oracle(x)), rtol=0, atol=1e-13)


# -- one value, no values, no statistics -------------------------------------------------------------------------------


def test_one_value_running_uses_running_statistics(rng):
    network = only(BatchNorm(2, one_value="running"))
    network.named_statistics()["0.statistics"][...] = [[8.0, 8.0], [1.0, -1.0], [4.0, 9.0]]
    x = np.asarray([[3.0, 2.0]])
    forward = network.forward(x, training=True)
    np.testing.assert_allclose(forward.output, (x - [1.0, -1.0]) / np.sqrt(np.asarray([4.0, 9.0]) + 1e-5), rtol=1e-14)
    np.testing.assert_array_equal(forward.pending.array, np.zeros_like(forward.pending.array))
    dx = forward.pullback(np.ones((1, 2)), network.gradients())  # the statistics are constants here
    np.testing.assert_allclose(dx, 1 / np.sqrt(np.asarray([[4.0, 9.0]]) + 1e-5), rtol=1e-14)
    two = network.forward(rng.standard_normal((2, 2)), training=True)
    np.testing.assert_array_equal(two.pending.array[0, :2], [2.0, 2.0])  # two values are a batch again


def test_evaluation_needs_a_step_since_the_last_reset(rng):
    network, x = Sequential(Activation("relu"), BatchNorm(3), backend="numpy"), rng.standard_normal((4, 3))
    for _ in range(2):
        np.testing.assert_array_equal(running(network, "1.statistics"), [[0.0] * 3, [0.0] * 3, [1.0] * 3])
        for evaluate in (network.predict, lambda x: network.forward(x, training=False)):
            with pytest.raises(InputError, match=r"^BatchNorm\(3\), layer 1: no statistics were .*yet.*Train first"):
                evaluate(x.astype(np.float32))
        step_of(network)([batch(x.astype(np.float32), np.zeros((4, 3), np.float32))])
        assert np.isfinite(network.predict(x)).all()
        network.reset_statistics()


# -- arguments ---------------------------------------------------------------------------------------------------------


def test_config_builds_the_same_layer():
    assert BatchNorm(3).config() == {
        "channels": 3, "decay": 0.9, "eps": 1e-5, "variance": "unbiased", "one_value": "raise", "gamma": True,
        "beta": True,
    }  # fmt: skip
    for options in (
        {"decay": None, "eps": 1e-300, "variance": "biased", "one_value": "running", "gamma": False, "beta": True},
        {"decay": 0.0, "eps": 1e-3, "variance": "unbiased", "one_value": "raise", "gamma": True, "beta": False},
    ):
        layer = BatchNorm(**BatchNorm(5, **options).config())
        assert layer.config() == {"channels": 5, **options}
        assert (layer.gamma is not None, layer.beta is not None) == (options["gamma"], options["beta"])


@pytest.mark.parametrize(
    ("convention", "decay", "eps", "variance"),
    [
        ("torch", 0.9, 1e-5, "unbiased"),
        ("keras", 0.99, 1e-3, "biased"),
        ("flax", 0.99, 1e-5, "biased"),
        ("tf", 0.99, 1e-3, "unbiased"),
        ("chainer", 0.9, 2e-5, "unbiased"),
    ],
)
def test_a_convention_has_its_own_defaults(convention, decay, eps, variance):
    layer = BatchNorm.from_convention(convention, 6)
    assert (layer.channels, layer.eps, layer.variance) == (6, eps, variance)
    assert layer.decay == pytest.approx(decay, abs=1e-15)
    assert layer.statistics.unbiased == (variance == "unbiased")
    layer = BatchNorm.from_convention(convention, 3, eps=0.5, gamma=False, one_value="running")
    assert (layer.eps, layer.gamma, layer.one_value) == (0.5, None, "running")


# Four values 1, 2, 3, 6: mean 3, squares 4 + 1 + 0 + 9 = 14, biased variance 3.5, unbiased 14/3. Running: 0 and 1.
@pytest.mark.parametrize(
    ("convention", "momentum", "mean", "var"),
    [
        ("torch", 0.25, 0.25 * 3, 0.75 + 0.25 * 14 / 3),
        ("keras", 0.25, 0.75 * 3, 0.25 + 0.75 * 3.5),
        ("flax", 0.25, 0.75 * 3, 0.25 + 0.75 * 3.5),
        ("tf", 0.25, 0.75 * 3, 0.25 + 0.75 * 14 / 3),
        ("chainer", 0.25, 0.75 * 3, 0.25 + 0.75 * 14 / 3),
        ("torch", 1, 3.0, 14 / 3),
        ("keras", 0, 3.0, 3.5),
        ("torch", None, 3.0, 3.5),
    ],
)
def test_a_momentum_means_what_it_means_in_its_convention(convention, momentum, mean, var):
    network = only(BatchNorm.from_convention(convention, 1, momentum=momentum))
    step_of(network)([batch(np.asarray([[1.0], [2.0], [3.0], [6.0]]), np.zeros((4, 1)))])
    np.testing.assert_allclose(running(network)[:, 0], [4, mean, var], rtol=1e-15)


def test_forward_changes_no_parameter_and_no_statistic(rng):
    network = only(BatchNorm(3))
    x = rng.standard_normal((5, 3))
    step_of(network)([batch(x, np.zeros((5, 3)))])
    before = network_bits(network)
    forward = network.forward(x, training=True)
    network.forward(x[:2], training=True)
    network.forward(x, training=False)
    forward.pullback(np.ones_like(x), network.gradients())
    network.predict(x, batch_size=2)
    network.explain_dispatch()
    assert network_bits(network) == before
    np.testing.assert_allclose(forward.pending.array[:, :3], statistics_of(x), rtol=1e-14)
