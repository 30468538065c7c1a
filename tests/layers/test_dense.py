"""Dense: its product, its bias and when the bias is left out."""

import numpy as np
import pytest

from bnengine.layers import Activation, BatchNorm, Dense, Dropout, Residual
from bnengine.layers.initializers import Glorot, He, Normal
from bnengine.network.sequential import Sequential
from bnengine.ops.activations import ACTIVATIONS, NONLINEAR
from bnengine.optim.optimizers import SGD
from tests.network.support import batch, slope_error, step_of


def network(*layers, **options):
    return Sequential(*layers, backend="numpy", dtype="float64", **options)


@pytest.mark.parametrize("shape", [(7, 5), (1, 5), (2, 3, 5), (2, 1, 4, 5)])
@pytest.mark.parametrize("bias", ["auto", True, False])
def test_the_output_is_x_W_plus_b(rng, shape, bias):
    net = network(Dense(5, 3, bias=bias))
    parameters = net.named_parameters()
    assert set(parameters) == ({"0.W", "0.b"} if bias else {"0.W"})
    b = 0.0
    if bias:
        np.testing.assert_array_equal(parameters["0.b"], np.zeros(3))
        parameters["0.b"][...] = b = rng.standard_normal(3)
    x = rng.standard_normal(shape)
    np.testing.assert_allclose(net.predict(x), np.einsum("...i,io->...o", x, parameters["0.W"]) + b, rtol=1e-13)


@pytest.mark.parametrize("kind", NONLINEAR)
def test_one_activation_after_it_becomes_part_of_it(rng, kind):
    """But one whose derivative needs the input, and a second one, stay layers."""
    after = Activation(kind, slope=0.3), Activation("tanh")
    net, apart, x = network(Dense(5, 3), *after), network(*after), rng.standard_normal((6, 5))
    assert len(net.fused) == (3 if ACTIVATIONS[kind].reads == "z" else 2)
    np.testing.assert_allclose(net.predict(x), apart.predict(x @ net.named_parameters()["0.W"]), rtol=1e-13)
    assert slope_error(net, x, rng, training=True) < 1e-7


# -- the bias that batch normalization cancels -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("layers", "kept"),
    [
        (lambda: (Dense(3, 4), BatchNorm(4)), False),
        (lambda: (Dense(3, 4, bias=True), BatchNorm(4)), True),
        (lambda: (Dense(3, 4, bias=False), BatchNorm(4)), False),
        (lambda: (Dense(3, 4),), True),
        (lambda: (Dense(3, 4), Activation("relu"), BatchNorm(4)), True),
        (lambda: (Dense(3, 4), Activation("gelu"), BatchNorm(4)), True),
        (lambda: (Dense(3, 4), Activation("identity"), BatchNorm(4)), False),
        (lambda: (Dense(3, 4), Dropout(0.5), BatchNorm(4)), True),
        (lambda: (Dense(3, 4), Residual(BatchNorm(4))), True),
        (lambda: (Dense(3, 4), Dense(4, 4, bias=False), BatchNorm(4)), True),
    ],
)
def test_only_a_bias_directly_before_a_batch_norm_is_left_out(layers, kept):
    net = network(*layers())
    assert ("0.b" in net.named_parameters()) == kept


def test_inside_a_residual_the_bias_is_left_out_by_the_same_rule():
    net = network(Residual(Dense(4, 4), BatchNorm(4), Activation("relu"), Dense(4, 4), BatchNorm(4)), Dense(4, 2))
    assert net.cancelled == ["0.0.b", "0.3.b"]
    assert net.cancelled_biases == 8
    assert "1.b" in net.named_parameters()


def test_a_bias_before_batch_norm_makes_no_difference(rng):
    x = rng.standard_normal((32, 5))
    without, kept = network(Dense(5, 4), BatchNorm(4)), network(Dense(5, 4, bias=True), BatchNorm(4))
    kept.named_parameters()["0.b"][...] = 1000.0
    y = without.forward(x, training=True).output
    np.testing.assert_allclose(kept.forward(x, training=True).output, y, rtol=0, atol=1e-11)


def test_a_dense_used_twice_has_its_bias_where_it_counts(rng):
    shared = Dense(4, 4)
    net = network(shared, BatchNorm(4), shared)
    parameters = net.named_parameters()
    assert list(parameters) == ["0.W", "0.b", "1.gamma", "1.beta"]
    assert (net.cancelled, net.cancelled_biases) == ([], 0)
    parameters["0.b"][...] = [1e3, -1e3, 1.0, 2.0]
    x = rng.standard_normal((8, 4))
    h = x @ parameters["0.W"]
    h = (h - h.mean(0)) / np.sqrt(h.var(0) + 1e-5)
    np.testing.assert_allclose(
        net.forward(x, training=True).output, h @ parameters["0.W"] + parameters["0.b"], rtol=1e-12
    )
    assert slope_error(net, x, rng, training=True) < 1e-7


@pytest.mark.parametrize(
    ("weights", "expected"),
    [("he", He()), ("glorot", Glorot()), (Normal(0.5), Normal(0.5)), ({"type": "Normal", "std": 0.1}, Normal(0.1))],
)
def test_weights_are_drawn_as_named(weights, expected):
    layer = Dense(3, 4, weights=weights)
    again = Dense(**layer.config())
    assert layer.W.initializer == again.W.initializer == expected
    assert again.config() == layer.config()


def test_weight_decay_leaves_biases_alone():
    net = network(Dense(3, 2))
    net.named_parameters()["0.b"][...] = 5.0
    x = np.zeros((4, 3))
    before = net.named_parameters()["0.W"].copy()
    step = step_of(net, SGD(weight_decay=0.5), rate=0.1)
    step([batch(x, np.full((4, 2), 5.0))])  # output and target agree: no gradient but the decay
    np.testing.assert_allclose(net.named_parameters()["0.W"], before * 0.95, rtol=1e-15)
    np.testing.assert_array_equal(net.named_parameters()["0.b"], [5.0, 5.0])
