"""The first place that is not finite is named as the reader knows it."""

import numpy as np
import pytest

from bnengine.layers import Activation, BatchNorm, Dense, Dropout, Residual
from bnengine.losses import MeanSquaredError, SoftmaxCrossEntropy
from bnengine.network.sequential import Sequential
from bnengine.training.diagnosis import first_non_finite
from tests.network.support import batch, bits, step_of


def ready(*layers, dtype="float32", **options):
    return step_of(Sequential(*layers, backend="numpy", dtype=dtype), **options)


def usual(**options):
    return ready(
        Dense(3, 4), BatchNorm(4), Activation("relu"), Residual(Dense(4, 4), Activation("tanh"), Dense(4, 4)),
        Dense(4, 2), **options,
    )  # fmt: skip


@pytest.fixture
def good(rng):
    return batch(rng.standard_normal((6, 3)).astype(np.float32), rng.standard_normal((6, 2)).astype(np.float32))


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_value_in_the_input_is_named_with_its_place(good, value):
    x = good.x.copy()
    x[3, 1] = value
    assert first_non_finite(usual(), good._replace(x=x)) == f"the input holds {value} at (3, 1)"


def test_a_value_in_the_target_is_named_with_its_place(good):
    y = good.y.copy()
    y[5, 0] = -np.inf
    assert first_non_finite(usual(), good._replace(y=y)) == "the target holds -inf at (5, 0)"


def test_integer_targets_are_no_place_for_nan(good):
    step = usual(loss=SoftmaxCrossEntropy())
    assert first_non_finite(step, good._replace(y=np.asarray([0, 1, 0, 1, 0, 1]))) is None


@pytest.mark.parametrize("name", ["0.W", "1.gamma", "3.0.W", "4.b"])
def test_a_value_in_a_parameter_is_named(good, name):
    step = usual()
    array = step.network.named_parameters()[name]
    array.reshape(-1)[-1] = np.nan
    place = tuple(n - 1 for n in array.shape)
    assert first_non_finite(step, good) == f"parameter {name} holds nan at {place}"


def test_an_overflow_in_a_layer_names_the_layer(good):
    step = usual()
    step.network.named_parameters()["4.W"][...] = 3e38
    assert first_non_finite(step, good).startswith("the output of Dense(4, 2), layer 4 holds ")


def test_an_overflow_inside_a_residual_names_the_inner_layer(good):
    step = usual()
    step.network.named_parameters()["3.2.W"][...] = 3e38
    step.network.named_parameters()["3.0.W"][...] = 1.0
    assert first_non_finite(step, good).startswith("the output of Dense(4, 4), layer 3.2 holds ")


def test_an_overflow_that_a_batch_norm_would_hide_is_named(good):
    step = ready(Dense(3, 2), BatchNorm(2), Dense(2, 2), dtype="float64")
    step.network.named_parameters()["0.W"][...] = 1e200
    before = bits(step)
    step([good])
    assert not step.report().ok
    assert bits(step) == before
    found = first_non_finite(step, good)
    assert found.startswith("the batch statistics of BatchNorm(2), layer 1 hold inf at (2, 0)")


def test_the_batch_norm_at_the_end_of_a_residual_is_named(good):
    step = ready(Dense(3, 2), Residual(Dense(2, 2), BatchNorm(2)), dtype="float64")
    step.network.named_parameters()["1.0.W"][...] = 1e200
    found = first_non_finite(step, good)
    assert "BatchNorm(2)" in found
    assert found.startswith("the batch statistics of ")


def test_a_loss_that_overflows_is_named(good):
    assert first_non_finite(usual(), good._replace(y=np.full((6, 2), 3e38))) == "the loss is inf at (0,)"


def overflowing_gradient(*layers):
    """All outputs are 0, the targets 1e15 and the inputs 1e30: the loss is 1e30, the gradient of the weights 1e45."""
    step = ready(*layers)
    for name, array in step.network.named_parameters().items():
        array[...] = np.eye(2) if name == "0.W" and len(layers) > 1 else 0.0
    return step, batch(np.full((2, 2), 1e30), np.full((2, 2), 1e15))


def test_a_gradient_that_overflows_is_named_with_its_layer():
    step, given = overflowing_gradient(Dense(2, 2, bias=False))
    assert first_non_finite(step, given) == "a gradient of Dense(2, 2), layer 0 holds -inf at (0, 0)"


def test_a_gradient_inside_a_residual_names_the_inner_layer():
    step, given = overflowing_gradient(Dense(2, 2), Residual(Dense(2, 2, bias=False)), Dense(2, 2, bias=False))
    step.network.named_parameters()["2.W"][...] = 1e-30
    assert first_non_finite(step, given).startswith("a gradient of Dense(2, 2), layer ")


def test_a_gradient_on_its_way_back_is_named():
    step = ready(Dense(2, 2, bias=False), Dense(2, 2, bias=False), Dense(2, 2, bias=False))
    parameters = step.network.named_parameters()
    parameters["0.W"][...], parameters["1.W"][...], parameters["2.W"][...] = 0.0, 1e20, 1e20
    found = first_non_finite(step, batch(np.ones((2, 2)), np.ones((2, 2))))
    assert found == "the gradient of the input of Dense(2, 2), layer 1 holds -inf at (0, 0)"


def test_gradients_whose_norm_alone_overflows_are_named():
    step = ready(Dense(2, 2, bias=False), dtype="float64")
    step.network.named_parameters()["0.W"][...] = 0.0
    given = batch(np.full((2, 2), 1e160), np.ones((2, 2)))
    step([given])
    assert not step.report().ok
    assert first_non_finite(step, given) == "the gradients are finite, but their norm is not"


def test_of_two_places_the_first_on_the_way_is_named(good):
    step = usual()
    step.network.named_parameters()["1.gamma"][...] = 3e38
    step.network.named_parameters()["4.W"][...] = 3e38
    assert "BatchNorm(4), layer 1" in first_non_finite(step, good)


def test_looking_changes_nothing(good):
    step = ready(Dense(3, 4), BatchNorm(4), Dropout(0.5), Dense(4, 2), loss=MeanSquaredError())
    step([good])
    before, report = bits(step), step.report()
    assert first_non_finite(step, good) is None
    first_non_finite(step, good._replace(x=good.x * np.nan))
    assert bits(step) == before
    assert step.report() == report
    gradients = step.state.gradients.array.copy()
    first_non_finite(step, good)
    np.testing.assert_array_equal(step.state.gradients.array, gradients)
