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


def set_affine(network, rng):
    gamma, beta = rng.standard_normal((2, network.outputs))
    for name, value in (("0.gamma", gamma), ("0.beta", beta)):
        network.named_parameters()[name][...] = value
    return gamma, beta


@pytest.mark.parametrize("shape", [(7, 3), (2, 3), (4, 5, 3), (2, 3, 4, 3), (1, 2, 3)])
def test_training_normalizes_by_the_biased_moments_of_the_batch(rng, shape):
    network = only(BatchNorm(3))
    gamma, beta = set_affine(network, rng)
    x = rng.standard_normal(shape) * 3 + 5
    y = network.forward(x, training=True).output
    np.testing.assert_allclose(y, oracle(x, gamma, beta), rtol=0, atol=1e-13)


def test_evaluation_normalizes_by_the_running_statistics(rng):
    network = only(BatchNorm(3))
    gamma, beta = set_affine(network, rng)
    network.named_statistics()["0.statistics"][...] = [[9, 9, 9], [1.0, 2.0, -3.0], [4.0, 0.25, 0.0]]
    x = rng.standard_normal((5, 3))
    expected = gamma * (x - [1.0, 2.0, -3.0]) / np.sqrt(np.asarray([4.0, 0.25, 0.0]) + 1e-5) + beta
    np.testing.assert_allclose(network.predict(x), expected, rtol=1e-13)
    assert network.predict(x[:1]).shape == (1, 3)


def test_images_are_rows_of_channels(rng):
    x = rng.standard_normal((3, 4, 5, 2))
    network = only(BatchNorm(2))
    image, rows = network.forward(x, training=True), network.forward(x.reshape(-1, 2), training=True)
    np.testing.assert_array_equal(image.output, rows.output.reshape(x.shape))
    np.testing.assert_array_equal(image.pending.array, rows.pending.array)
    dy = rng.standard_normal(x.shape)
    ours, theirs = network.gradients(), network.gradients()
    dx = image.pullback(dy, ours)
    np.testing.assert_array_equal(dx, rows.pullback(dy.reshape(-1, 2), theirs).reshape(x.shape))
    np.testing.assert_array_equal(ours.array, theirs.array)


def test_eps_is_added_to_the_variance_and_nowhere_else():
    network = only(BatchNorm(1, eps=3.0))
    x = np.asarray([[1.0], [3.0]])  # mean 2, var 1, so the divisor is sqrt(1 + 3) = 2
    forward = network.forward(x, training=True)
    np.testing.assert_array_equal(forward.output, [[-0.5], [0.5]])
    assert forward.pending.array[2, 0] == 1.0  # the statistics are free of it
    network.named_statistics()["0.statistics"][...] = [[2.0], [2.0], [1.0]]
    np.testing.assert_array_equal(network.predict(x), [[-0.5], [0.5]])


def test_eps_is_1e_5_by_default():
    network = only(BatchNorm(1))
    y = network.forward(np.asarray([[-1e-3], [1e-3]]), training=True).output
    np.testing.assert_allclose(y[1, 0], 1e-3 / np.sqrt(1e-6 + 1e-5), rtol=1e-14)


@pytest.mark.parametrize(("gamma", "beta"), [(True, False), (False, True), (False, False)])
def test_gamma_and_beta_can_be_switched_off_each(rng, gamma, beta):
    network = only(BatchNorm(3, gamma=gamma, beta=beta))
    assert set(network.named_parameters()) == {n for n, on in (("0.gamma", gamma), ("0.beta", beta)) if on}
    for array in network.named_parameters().values():
        array[...] = [2.0, -1.0, 0.5]
    values = np.asarray([2.0, -1.0, 0.5])
    x = rng.standard_normal((6, 3))
    forward = network.forward(x, training=True)
    expected = oracle(x, values if gamma else 1.0, values if beta else 0.0)
    np.testing.assert_allclose(forward.output, expected, rtol=0, atol=1e-13)
    grads = network.gradients()
    assert forward.pullback(np.ones_like(x), grads).shape == x.shape
    handles = network.named_handles()
    if beta:
        np.testing.assert_array_equal(grads[handles["0.beta"]], [6.0, 6.0, 6.0])
    if gamma:
        np.testing.assert_allclose(grads[handles["0.gamma"]], np.zeros(3), atol=1e-13)


def test_gamma_begins_at_one_and_beta_at_zero_and_neither_decays():
    layer = BatchNorm(4)
    parameters = only(layer).named_parameters()
    np.testing.assert_array_equal(parameters["0.gamma"], np.ones(4))
    np.testing.assert_array_equal(parameters["0.beta"], np.zeros(4))
    assert (layer.gamma.decays, layer.beta.decays) == (False, False)


def test_an_activation_after_it_gives_what_it_gives_apart(rng):
    x = rng.standard_normal((8, 3))
    for kind in NONLINEAR:
        together = Sequential(BatchNorm(3), Activation(kind, slope=0.3), backend="numpy", dtype="float64")
        assert len(together.fused) == 1
        apart = Sequential(Activation(kind, slope=0.3), backend="numpy", dtype="float64")
        y = apart.predict(oracle(x))
        np.testing.assert_allclose(together.forward(x, training=True).output, y, rtol=0, atol=1e-13)


def test_a_second_activation_stays_a_layer_of_its_own(rng):
    x = rng.standard_normal((8, 3))
    network = Sequential(BatchNorm(3), Activation("tanh"), Activation("relu"), backend="numpy", dtype="float64")
    assert len(network.fused) == 2
    expected = np.maximum(np.tanh(oracle(x)), 0)
    np.testing.assert_allclose(network.forward(x, training=True).output, expected, rtol=0, atol=1e-13)


@pytest.mark.parametrize("mean", [0.0, 1e3, 1e6])
def test_in_float32_a_large_mean_costs_no_digits(rng, mean):
    x = (mean + rng.standard_normal((256, 5))).astype(np.float32)
    network = Sequential(BatchNorm(5), backend="numpy", dtype="float32")
    gamma, beta = set_affine(network, rng)
    gamma, beta = gamma.astype(np.float32), beta.astype(np.float32)
    y, u = network.forward(x, training=True).output, 2.0**-24
    exact = oracle(x.astype(np.float64), gamma.astype(np.float64), beta.astype(np.float64))
    assert y.dtype == np.float32
    assert np.all(np.abs(y - exact) <= 10 * u * np.abs(exact) + 10 * u * np.abs(gamma))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("value", [0.1, -7.3, 1e6, 1e-40, 0.0])
def test_a_constant_channel_gives_exactly_beta(dtype, value):
    network = Sequential(BatchNorm(2), backend="numpy", dtype=dtype)
    network.named_parameters()["0.beta"][...] = [0.3, -2.0]
    y = network.forward(np.full((7, 2), value, dtype), training=True).output
    np.testing.assert_array_equal(y, np.broadcast_to(np.asarray([0.3, -2.0], dtype), (7, 2)))


def test_a_first_row_that_is_an_outlier_costs_no_digits(rng):
    x = rng.standard_normal((64, 3)).astype(np.float32)
    x[0] = 1e6
    y = Sequential(BatchNorm(3), backend="numpy").forward(x, training=True).output
    exact, u = oracle(x.astype(np.float64)), 2.0**-24
    assert np.all(np.abs(y - exact) <= 10 * u * np.abs(exact) + 10 * u)


# -- one value, no values, no statistics -------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(1, 3), (1, 1, 3), (1, 1, 1, 3)])
def test_one_value_per_channel_in_training_names_the_cures(shape):
    network = Sequential(BatchNorm(3), backend="numpy")
    with pytest.raises(InputError) as error:
        network.forward(np.ones(shape, np.float32), training=True)
    message = str(error.value)
    assert message.startswith("BatchNorm(3), layer 0: one value per channel in training")
    assert str(shape) in message
    for cure in ("a batch of two", "join the one before", "one_value='running'"):
        assert cure in message


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


def test_two_rows_and_one_row_of_two_pixels_are_enough():
    network = only(BatchNorm(1))
    for x in (np.asarray([[1.0], [3.0]]), np.asarray([[[1.0], [3.0]]])):
        forward = network.forward(x, training=True)
        np.testing.assert_array_equal(forward.pending.array[:, 0], [2.0, 2.0, 1.0])
        np.testing.assert_allclose(forward.output.ravel(), [-1.0, 1.0], atol=1e-5)


def test_evaluating_before_any_statistics_names_the_layer(rng):
    network = Sequential(Activation("relu"), BatchNorm(3), backend="numpy")
    with pytest.raises(InputError, match=r"^BatchNorm\(3\), layer 1: no statistics were collected yet.*Train first"):
        network.predict(rng.standard_normal((4, 3)))
    with pytest.raises(InputError, match="no statistics"):
        network.forward(rng.standard_normal((4, 3)), training=False)


def test_evaluation_needs_a_step_since_the_last_reset(rng):
    network = only(BatchNorm(3))
    x = rng.standard_normal((4, 3))
    step_of(network)([batch(x, np.zeros((4, 3)))])
    assert np.isfinite(network.predict(x)).all()
    network.reset_statistics()
    np.testing.assert_array_equal(running(network), [[0.0] * 3, [0.0] * 3, [1.0] * 3])
    with pytest.raises(InputError, match="no statistics"):
        network.predict(x)


def test_another_width_than_the_layer_was_made_for_is_an_error():
    with pytest.raises(InputError, match=r"BatchNorm\(4\), layer 1: the input has 3 features.*made for 4"):
        Sequential(BatchNorm(3), BatchNorm(4), backend="numpy")


# -- arguments ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"decay": 1.0}, r"decay must be a finite number of at least 0 and below 1, got 1\.0"),
        ({"decay": -0.1}, r"decay must .* got -0\.1"),
        ({"decay": float("nan")}, "decay must .* got nan"),
        ({"eps": 0.0}, r"eps must be a finite number above 0, got 0\.0"),
        ({"eps": -1e-5}, "eps must .* got -1e-05"),
        ({"eps": float("inf")}, "eps must .* got inf"),
        ({"eps": float("nan")}, "eps must .* got nan"),
        ({"variance": "sample"}, "variance must be 'unbiased' or 'biased', got 'sample'"),
        ({"one_value": "ignore"}, "one_value must be 'raise' or 'running', got 'ignore'"),
    ],
)
def test_an_unusable_argument_is_an_error_that_echoes_it(options, text):
    with pytest.raises(InputError, match=rf"^BatchNorm\(3\): .*{text}"):
        BatchNorm(3, **options)


@pytest.mark.parametrize("channels", [0, -1, 2.0, "3", True, None])
def test_channels_are_a_whole_number_from_one_up(channels):
    with pytest.raises(InputError, match=r"^BatchNorm: channels must be an integer of at least 1, got "):
        BatchNorm(channels)


def test_the_edges_of_the_arguments_are_allowed():
    assert BatchNorm(1, decay=0.0).decay == 0.0
    assert BatchNorm(1, decay=0.999).decay == 0.999
    assert BatchNorm(1, eps=1e-300).eps == 1e-300
    assert BatchNorm(1, decay=None).decay is None


def test_the_defaults_are_those_of_the_documentation():
    assert BatchNorm(3).config() == {
        "channels": 3, "decay": 0.9, "eps": 1e-5, "variance": "unbiased", "one_value": "raise", "gamma": True,
        "beta": True,
    }  # fmt: skip


def test_config_builds_the_same_layer():
    options = {"decay": None, "eps": 1e-3, "variance": "biased", "one_value": "running", "gamma": False, "beta": True}
    layer = BatchNorm(5, **options)
    assert layer.config() == {"channels": 5, **options}
    again = BatchNorm(**layer.config())
    assert again.config() == layer.config()
    assert (again.gamma is None, again.beta is None) == (True, False)
    assert BatchNorm(2, beta=False).config()["beta"] is False
    assert repr(layer) == "BatchNorm(5)"


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


def test_a_convention_takes_other_options():
    layer = BatchNorm.from_convention("keras", 3, eps=0.5, gamma=False, one_value="running")
    assert (layer.eps, layer.gamma, layer.one_value) == (0.5, None, "running")
    assert BatchNorm.from_convention("torch", 3, momentum=None).decay is None


@pytest.mark.parametrize(
    ("name", "momentum", "text"),
    [
        ("caffe", 0.1, "name must be 'torch', 'keras', 'flax', 'tf' or 'chainer', got 'caffe'"),
        ("keras", None, "momentum must be a finite number .* got None"),
        ("chainer", None, "momentum must be a finite number .* got None"),
        ("torch", 1.5, r"momentum must .*, got 1\.5\. torch uses 0\.1 by default"),
        ("keras", -0.5, r"momentum must .*, got -0\.5\. keras uses 0\.99"),
        ("torch", 0, r"the momentum of torch must .* got 0\.0\. .*freeze"),
        ("keras", 1.0, r"the momentum of keras must .* got 1\.0\. .*freeze"),
    ],
)
def test_a_convention_or_momentum_without_meaning_is_an_error(name, momentum, text):
    with pytest.raises(InputError, match=rf"^BatchNorm\.from_convention: {text}"):
        BatchNorm.from_convention(name, 3, momentum=momentum)


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
