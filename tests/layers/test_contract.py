"""What every layer promises: nothing is overwritten, dx goes where it is wanted, a pullback runs once."""

import numpy as np
import pytest

from bnengine.errors import InputError
from bnengine.layers import (
    Activation,
    BatchNorm,
    Dense,
    Dropout,
    Layer,
    Residual,
    build,
    chain,
    config_of,
    register,
    walk,
)
from bnengine.network.sequential import Sequential
from bnengine.ops import Out
from bnengine.ops.activations import ACTIVATIONS
from tests.network.support import FIRST, collected, slope_error

LAYERS = {
    "Dense": lambda: [Dense(4, 3)],
    "Dense, relu": lambda: [Dense(4, 3), Activation("relu")],
    "BatchNorm": lambda: [BatchNorm(4)],
    "BatchNorm, gelu": lambda: [BatchNorm(4), Activation("gelu")],
    "bare BatchNorm": lambda: [BatchNorm(4, gamma=False, beta=False)],
    "identity": lambda: [Activation("identity")],
    "gelu": lambda: [Activation("gelu")],
    "Dropout": lambda: [Dropout(0.3)],
    "Dropout of nothing": lambda: [Dropout(0.0)],
    "Residual, summed in BatchNorm": lambda: [Residual(Dense(4, 4), BatchNorm(4))],
    "Residual, summed apart": lambda: [Residual(Dense(4, 4))],
    "Residual of a Dropout": lambda: [Residual(Dropout(0.3))],
    "Residual of a Residual": lambda: [Residual(Residual(BatchNorm(4)), Dropout(0.3))],
    "several": lambda: [Dropout(0.3), Dense(4, 4), BatchNorm(4), Activation("leaky_relu"), Dense(4, 2)],
}
MODES = pytest.mark.parametrize("training", [True, False], ids=["training", "evaluation"])


def ready(kind, rng, shape=(6, 4), dtype="float64"):
    net = collected(Sequential(*LAYERS[kind](), backend="numpy", dtype=dtype), rng)
    x = rng.standard_normal(shape).astype(dtype)
    return net, x, rng.standard_normal(net.forward(x, training=False).output.shape).astype(dtype)


@MODES
@pytest.mark.parametrize("kind", LAYERS)
def test_dx_is_returned_left_out_stored_or_added_and_nothing_is_overwritten(rng, kind, training):
    net, x, dy = ready(kind, rng)
    x.flags.writeable = dy.flags.writeable = False
    parameters, found = net.parameters.array.tobytes(), []

    def pull(dx):
        grads, forward = net.gradients(), net.forward(x, training=training, step=FIRST)
        output = forward.output.copy()
        got = forward.pullback(dy, grads, dx=dx)
        np.testing.assert_array_equal(forward.output, output)
        found.append(grads.array.tobytes())
        with pytest.raises(InputError, match=r"^pullback: it ran already.*Run forward again"):
            forward.pullback(dy, net.gradients())
        return got

    expected = np.asarray(pull(True)).copy()
    assert expected.shape == x.shape
    assert pull(False) is None
    held = rng.standard_normal(x.shape)
    before = held.copy()
    assert pull(Out(held, adds=True)) is held
    np.testing.assert_allclose(held, before + expected, rtol=1e-13, atol=1e-14)
    assert pull(Out(held)) is held
    np.testing.assert_array_equal(held, expected)
    assert set(found) == {found[0]}
    assert net.parameters.array.tobytes() == parameters


@MODES
@pytest.mark.parametrize("kind", LAYERS)
def test_the_way_back_has_the_slopes_of_the_way_there(rng, kind, training):
    net, x, _ = ready(kind, rng, (3, 2, 4))
    assert slope_error(net, x, rng, training=training) < 1e-7


@pytest.mark.parametrize("kind", LAYERS)
def test_two_forwards_do_not_disturb_each_other(rng, kind):
    """The derivative of the first is what it would have been, whatever ran in between."""
    net, x, dy = ready(kind, rng)
    alone, between = net.gradients(), net.gradients()
    dx = np.asarray(net.forward(x, training=True, step=FIRST).pullback(dy, alone)).copy()
    first = net.forward(x, training=True, step=FIRST)
    net.forward(x * 2 + 1, training=True).pullback(dy, net.gradients())
    np.testing.assert_array_equal(first.pullback(dy, between), dx)
    np.testing.assert_array_equal(alone.array, between.array)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("kind", LAYERS)
def test_a_network_built_from_its_config_gives_the_same_in_its_dtype(rng, kind, dtype):
    net, x, dy = ready(kind, rng, dtype=dtype)
    again = Sequential(*build(config_of(net.layers)), backend="numpy", dtype=dtype)
    again.load_state_dict(net.state_dict())
    np.testing.assert_array_equal(net.forward(x, training=False).output, again.forward(x, training=False).output)
    ours, theirs = net.forward(x, training=True), again.forward(x, training=True)
    np.testing.assert_array_equal(ours.output, theirs.output)
    assert (ours.output.dtype, ours.pullback(dy, net.gradients()).dtype) == (np.dtype(dtype), np.dtype(dtype))


# -- dropout -----------------------------------------------------------------------------------------------------------


def test_calls_that_say_no_step_have_masks_of_their_own():
    net, x = Sequential(Dropout(0.5), backend="numpy"), np.ones((8, 500), np.float32)
    masks = [net.forward(x, training=True).output != 0 for _ in range(3)]
    masks.append(net.forward(x, training=True, step=FIRST).output != 0)
    assert [np.mean(masks[0] == mask) > 0.6 for mask in masks] == [True, False, False, True]


def test_dropout_keeps_and_scales_the_share_that_it_says(rng):
    x, net = rng.standard_normal((400, 50)) + 3, Sequential(Dropout(0.25), backend="numpy", dtype="float64")
    y = net.forward(x, training=True).output
    kept = y != 0
    np.testing.assert_allclose(y[kept], x[kept] / 0.75, rtol=1e-15)
    assert abs(kept.mean() - 0.75) < 5 * (0.75 * 0.25 / x.size) ** 0.5
    np.testing.assert_array_equal(net.predict(x), x)
    np.testing.assert_array_equal(net.forward(x, training=True, dropout=False).output, x)


def test_a_mask_depends_on_seed_layer_step_sample_and_feature():
    x = np.ones((6, 64))

    def masks(seed=0, layers=1, **keys):
        net = Sequential(*[Dropout(0.5) for _ in range(layers)], backend="numpy", dtype="float64", seed=seed)
        return net.forward(x, training=True, **keys).output != 0

    usual, order = masks(), np.asarray([3, 1, 5, 0, 2, 4])
    np.testing.assert_array_equal(masks(samples=np.arange(6), step=np.asarray([0])), usual)
    np.testing.assert_array_equal(masks(samples=order), usual[order])
    for other in (masks(seed=1), masks(step=np.asarray([1])), masks(samples=np.arange(6) + 6)):
        assert (other != usual).any(axis=1).all()
    both = masks(layers=2)
    assert not (both & ~usual).any()  # the first of two is keyed as the only one
    assert abs(both.mean() - 0.25) < 0.1
    assert (usual[:, 0] != usual[:, 1]).any()


def test_each_use_of_a_dropout_has_another_mask():
    shared = Dropout(0.5)
    net = Sequential(shared, Residual(Dropout(0.5)), shared, Residual(Residual(shared)), backend="numpy")
    first, second, third, fourth = net.fused
    inner = fourth.body[0].body[0]
    assert [first.dropout, second.body[0].dropout, third.dropout, inner.dropout] == [0, 1, 2, 3]


@pytest.mark.parametrize("kind", ACTIVATIONS)
def test_a_nan_passes_through_every_activation(kind):
    net = Sequential(Activation(kind), backend="numpy", dtype="float64")
    y = net.forward(np.asarray([[np.nan, 1.0, 2.0, -3.0]]), training=True).output[0]
    assert np.isnan(y).tolist() == [True, False, False, False]


# -- custom layers ---------------------------------------------------------------------------------------------------


@register
class Scale(Layer):
    """y = factor x, with a fixed factor."""

    def __init__(self, factor):
        self.factor = factor

    def config(self):
        return {"factor": self.factor}

    def forward(self, x, run):
        y, pull = chain([Activation("identity")], x, run)
        return y * self.factor, lambda dy, grads, *, dx=True: pull(dy * self.factor, grads, dx=dx)


class Doubled(Layer):
    """x twice in a row: a layer that changes the width, and cannot be saved."""

    def features(self, inputs):
        return None if inputs is None else 2 * inputs

    def forward(self, x, run):  # noqa: ARG002
        def pullback(dy, grads, *, dx=True):  # noqa: ARG001
            half = x.shape[-1]
            return dy[..., :half] + dy[..., half:] if dx is True else None

        return np.concatenate([x, x], axis=-1), pullback


def test_a_registered_custom_layer_is_built_from_its_config(rng):
    net = Sequential(Dense(3, 3), Residual(Scale(2.5)), Scale(-1), backend="numpy", dtype="float64")
    assert config_of(net.layers)[2] == {"type": "Scale", "factor": -1}
    again = Sequential.from_config(net.config(), backend="numpy")
    x = rng.standard_normal((4, 3))
    np.testing.assert_array_equal(again.predict(x), net.predict(x))
    assert slope_error(net, x, rng, training=True) < 1e-7


def test_a_layer_without_config_trains_but_is_not_saved(rng):
    net = Sequential(Doubled(), Dense(6, 2), backend="numpy", dtype="float64")
    assert net.predict(rng.standard_normal((4, 3))).shape == (4, 2)
    assert (net.inputs, net.outputs) == (None, 2)
    with pytest.raises(InputError, match=r"^Doubled: the layer has no config\(\).*register"):
        net.config()


def test_the_layer_after_one_that_changes_the_width_is_checked():
    with pytest.raises(InputError, match=r"^Dense\(5, 2\), layer 2: the input must have 5 features, got 6"):
        Sequential(Dense(4, 3), Doubled(), Dense(5, 2), backend="numpy")


def test_a_layer_that_stands_twice_is_written_once():
    shared, dropout = Dense(4, 4), Dropout(0.1)
    layers = [shared, Residual(dropout, shared), Residual(BatchNorm(4)), dropout]
    configs = config_of(layers)
    assert configs[1] == {"type": "Residual", "body": [{"type": "Dropout", "rate": 0.1}, {"same_as": "0"}]}
    assert configs[3] == {"same_as": "1.0"}
    again = build(configs)
    assert again[1].body[1] is again[0]
    assert again[3] is again[1].body[0]
    assert config_of(again) == configs
    assert Activation("leaky_relu", slope=0.2).config() == {"kind": "leaky_relu", "slope": 0.2}


def test_places_name_the_layers_inside_too():
    layers = [Dense(4, 4), Residual(Dense(4, 4), Residual(BatchNorm(4)))]
    assert [(place, repr(layer)) for place, layer in walk(layers)] == [
        ("0", "Dense(4, 4)"),
        ("1", "Residual(Dense(4, 4), Residual(BatchNorm(4)))"),
        ("1.0", "Dense(4, 4)"),
        ("1.1", "Residual(BatchNorm(4))"),
        ("1.1.0", "BatchNorm(4)"),
    ]
