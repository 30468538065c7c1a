"""Residual: x + body(x), whatever the body ends in."""

import numpy as np
import pytest

from bnengine.errors import InputError
from bnengine.layers import Activation, BatchNorm, Dense, Dropout, Residual
from bnengine.network.sequential import Sequential
from tests.network.support import collected

BODIES = {
    "Dense": lambda: [Dense(4, 4)],
    "Dense, BatchNorm": lambda: [Dense(4, 6), Activation("tanh"), Dense(6, 4), BatchNorm(4)],
    "BatchNorm, Dense": lambda: [BatchNorm(4), Activation("relu"), Dense(4, 4)],
    "BatchNorm, tanh": lambda: [Dense(4, 4), BatchNorm(4), Activation("tanh")],
    "gelu": lambda: [Dense(4, 4), Activation("gelu")],
    "Dropout": lambda: [Dense(4, 4), BatchNorm(4), Dropout(0.4)],
    "only Dropout": lambda: [Dropout(0.4)],
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


def test_one_activation_moves_into_a_batch_norm_that_sums(rng):
    net = network(Residual(Dense(4, 4), BatchNorm(4)), Activation("tanh"), Activation("relu"), Dense(4, 2))
    residual, _, dense = net.fused
    assert (residual.sums, dense.place, residual.body[-1].after.layer) == (True, "3", net.layers[1])
    assert len(network(Residual(Dense(4, 4)), Activation("relu")).fused) == 2
    assert len(network(Residual(BatchNorm(4), Activation("tanh")), Activation("relu")).fused) == 2
    x, images = rng.standard_normal((12, 4)), (2, 3, 2)
    flat = net.forward(x, training=True).output
    of_images = net.forward(x.reshape(*images, 4), training=True).output
    np.testing.assert_allclose(of_images, flat.reshape(*images, 2), rtol=0, atol=1e-14)


def test_the_width_of_a_body_is_what_the_network_expects(rng):
    net = network(Residual(Dropout(0.2), Dense(4, 4)), Dense(4, 2))
    assert (net.inputs, net.outputs) == (4, 2)
    with pytest.raises(InputError, match=r"the input must have . features, got 5"):
        net.predict(rng.standard_normal((2, 5)))
    free = network(Residual(Activation("tanh")), Dense(3, 2))
    assert free.inputs == 3
