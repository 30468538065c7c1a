"""Residual: x + body(x), whatever the body ends in."""

import numpy as np
import pytest

from bnengine.errors import InputError
from bnengine.layers import Activation, BatchNorm, Dense, Dropout, Residual
from bnengine.network.sequential import Sequential
from tests.network.support import collected, slope_error

BODIES = {
    "BatchNorm": lambda: [BatchNorm(4)],
    "Dense": lambda: [Dense(4, 4)],
    "Dense, BatchNorm": lambda: [Dense(4, 6), Activation("tanh"), Dense(6, 4), BatchNorm(4)],
    "BatchNorm, Dense": lambda: [BatchNorm(4), Activation("relu"), Dense(4, 4)],
    "Dense, tanh": lambda: [Dense(4, 4), Activation("tanh")],
    "BatchNorm, tanh": lambda: [Dense(4, 4), BatchNorm(4), Activation("tanh")],
    "gelu": lambda: [Dense(4, 4), Activation("gelu")],
    "Activation": lambda: [Activation("tanh")],
    "Dropout": lambda: [Dense(4, 4), BatchNorm(4), Dropout(0.4)],
    "only Dropout": lambda: [Dropout(0.4)],
    "Dropout first": lambda: [Dropout(0.4), Dense(4, 4), BatchNorm(4)],
    "nested": lambda: [Residual(Dense(4, 4), BatchNorm(4)), Dense(4, 4), BatchNorm(4)],
    "nested last": lambda: [Dense(4, 4), Residual(BatchNorm(4))],
    "nested twice": lambda: [Residual(Residual(Dense(4, 4), BatchNorm(4)), BatchNorm(4))],
}
AFTER = {"nothing": lambda: [], "relu": lambda: [Activation("relu")], "gelu": lambda: [Activation("gelu")]}


def network(*layers, seed=0):
    return Sequential(*layers, backend="numpy", dtype="float64", seed=seed)


@pytest.mark.parametrize("after", AFTER)
@pytest.mark.parametrize("body", BODIES)
@pytest.mark.parametrize("training", [True, False])
def test_a_residual_is_the_sum_of_its_input_and_its_body(rng, body, after, training):
    """Against the body and the activation as networks of their own, with the same numbers; forward and back."""
    net = network(Residual(*BODIES[body]()), *AFTER[after]())
    inner = network(*BODIES[body]())
    for name, array in net.named_parameters().items():
        array[...] = rng.standard_normal(array.shape)
        inner.named_parameters()[name.removeprefix("0.")][...] = array
    collected(net, rng)
    for name, array in net.named_statistics().items():
        inner.named_statistics()[name.removeprefix("0.")][...] = array
    x, dy = rng.standard_normal((6, 4)), rng.standard_normal((6, 4))
    forward, part = net.forward(x, training=training), inner.forward(x, training=training)
    outer = network(Activation(after if after != "nothing" else "identity")).forward(x + part.output, training=True)
    np.testing.assert_allclose(forward.output, outer.output, rtol=1e-12, atol=1e-13)
    np.testing.assert_array_equal(forward.pending.array, part.pending.array)
    grads, inner_grads = net.gradients(), inner.gradients()
    dx = forward.pullback(dy, grads)
    dsum = outer.pullback(dy, network(Activation("relu")).gradients())
    np.testing.assert_allclose(dx, dsum + part.pullback(dsum, inner_grads), rtol=1e-12, atol=1e-12)
    for name, handle in net.named_handles().items():
        if handle in grads.offsets:
            other = inner_grads[inner.named_handles()[name.removeprefix("0.")]]
            np.testing.assert_allclose(grads[handle], other, rtol=1e-11, atol=1e-12)


def test_the_last_batch_norm_takes_the_sum_and_the_activation():
    net = network(Residual(Dense(4, 4), BatchNorm(4)), Activation("relu"), Dense(4, 2))
    residual, dense = net.fused
    last = residual.body[-1]
    assert (residual.sums, dense.place, last.after.layer) == (True, "2", net.layers[1])
    assert last.layer is net.layers[0].body[-1]


def test_an_activation_stays_outside_if_the_body_ends_otherwise():
    assert len(network(Residual(Dense(4, 4)), Activation("relu")).fused) == 2
    assert len(network(Residual(BatchNorm(4), Activation("tanh")), Activation("relu")).fused) == 2


def test_only_one_activation_moves_in(rng):
    net = network(Residual(BatchNorm(4)), Activation("tanh"), Activation("relu"))
    assert len(net.fused) == 2
    x = rng.standard_normal((5, 4))
    h = (x - x.mean(0)) / np.sqrt(x.var(0) + 1e-5)
    np.testing.assert_allclose(net.forward(x, training=True).output, np.maximum(np.tanh(h + x), 0), rtol=0, atol=1e-13)


@pytest.mark.parametrize("body", BODIES)
def test_the_way_back_has_the_slopes_of_the_way_there(rng, body):
    net = network(Dense(3, 4), Residual(*BODIES[body]()), Activation("gelu"), Residual(*BODIES[body]()))
    assert slope_error(net, rng.standard_normal((7, 3)), rng, training=True) < 1e-7


def test_images_pass_through(rng):
    net = network(Residual(Dense(4, 4), BatchNorm(4)), Activation("relu"))
    x = rng.standard_normal((2, 3, 2, 4))
    flat = net.forward(x.reshape(-1, 4), training=True).output
    np.testing.assert_allclose(net.forward(x, training=True).output, flat.reshape(x.shape), rtol=0, atol=1e-14)


@pytest.mark.parametrize("body", [[Dense(4, 3)], [Dense(4, 6), BatchNorm(6)], [Residual(Dense(4, 1))]])
def test_a_body_that_changes_an_unknown_width_is_an_error(body):
    for before in ([], [Dense(2, 4)], [Dropout(0.1), Activation("relu")]):
        with pytest.raises(InputError, match=r"^Residual\(.*layer \d.*: the body makes \d features of 4. Both"):
            network(*before, Residual(*body))


def test_a_body_of_another_input_width_names_the_inner_layer():
    with pytest.raises(InputError, match=r"^Dense\(5, 5\), layer 1\.0: the input has 4 features"):
        network(Dense(3, 4), Residual(Dense(5, 5)))


def test_an_empty_body_is_an_error():
    with pytest.raises(InputError, match=r"^Residual\(\): the body is empty. Give it at least one layer"):
        Residual()


def test_what_is_no_layer_in_a_body_is_an_error():
    with pytest.raises(InputError, match=r"^Residual: 'relu' is not a layer. Give objects such as Dense\(64, 64\)"):
        Residual(Dense(4, 4), "relu")


def test_the_width_of_a_body_is_what_the_network_expects(rng):
    net = network(Residual(Dropout(0.2), Dense(4, 4)), Dense(4, 2))
    assert (net.inputs, net.outputs) == (4, 2)
    with pytest.raises(InputError, match="the input has 5 features"):
        net.predict(rng.standard_normal((2, 5)))
    free = network(Residual(Activation("tanh")), Dense(3, 2))
    assert free.inputs == 3


def test_its_text_shows_its_body():
    assert repr(Residual(Dense(4, 4), BatchNorm(4))) == "Residual(Dense(4, 4), BatchNorm(4))"
