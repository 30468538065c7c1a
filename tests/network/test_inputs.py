"""What goes into a network: dtypes, shapes, layouts, other libraries, batches."""

import numpy as np
import pytest

from bnengine.errors import InputError
from bnengine.layers import Activation, BatchNorm, Dense, Dropout
from bnengine.network.sequential import Sequential
from tests.network.support import FIRST, collected


@pytest.fixture
def net(rng):
    layers = Dense(5, 6), BatchNorm(6), Activation("gelu"), Dropout(0.3), Dense(6, 2)
    return collected(Sequential(*layers, backend="numpy"), rng)


@pytest.mark.parametrize("dtype", [np.int64, np.uint8, np.int8, np.bool_, np.uint32])
def test_integers_are_an_error_with_the_cure(net, dtype):
    with pytest.raises(
        InputError, match=rf"^Sequential: the input must be floating, .*got {np.dtype(dtype)}.*x / 255.*Preprocessing"
    ):
        net.predict(np.ones((3, 5), dtype))


def test_a_list_of_floats_is_an_input_and_one_of_integers_is_not(net):
    with pytest.raises(InputError, match=r"the input must be floating, .*got int64"):
        net.predict([[1, 2, 3, 4, 5]])
    np.testing.assert_array_equal(net.predict([[1.0, 2, 3, 4, 5]]), net.predict(np.asarray([[1.0, 2, 3, 4, 5]])))


@pytest.mark.parametrize("x", [np.full((3, 5), "a"), np.full((3, 5), 1j), np.full((3, 5), None)])
def test_text_complex_numbers_and_objects_are_errors(net, x):
    with pytest.raises(InputError, match=f"^Sequential: the input must be floating, .*got {x.dtype}"):
        net.predict(x)


def test_float16_is_widened_and_float64_rounded(net, rng):
    x = rng.standard_normal((4, 5))
    for given in (x, x.astype(np.float16), x.astype(np.longdouble), x.astype(">f8"), x.astype(">f4")):
        y = net.predict(given)
        assert y.dtype == np.float32
        np.testing.assert_array_equal(y, net.predict(given.astype(np.float32)))


def test_float16_input_gives_what_its_values_give(rng):
    x = rng.standard_normal((64, 3)).astype(np.float16)
    net = Sequential(BatchNorm(3), backend="numpy", dtype="float64")
    y = net.forward(x, training=True).output
    wide = x.astype(np.float64)
    np.testing.assert_allclose(y, (wide - wide.mean(0)) / np.sqrt(wide.var(0) + 1e-5), rtol=0, atol=1e-13)


def test_a_number_too_large_for_the_network_is_an_error(net):
    with pytest.raises(InputError, match="does not fit float32"):
        net.predict(np.full((2, 5), 1e39))


@pytest.mark.parametrize(
    ("shape", "text"),
    [
        ((5,), r"^Sequential: the input must be \(rows, \.\.\., features\), .*got shape \(5,\)"),
        ((), r"^Sequential: the input must be .*got shape \(\)"),
        ((0, 5), r"^Sequential: the input must be .*at least one row, got shape \(0, 5\)"),
        ((3, 4), r"^Dense\(5, 6\), layer 0: the input must have 5 features, got 4\. .*\(rows, 5\)"),
        ((3, 5, 6), r"^Dense\(5, 6\), layer 0: the input must have 5 features, got 6"),
        ((3, 0), r"^Dense\(5, 6\), layer 0: the input must have 5 features, got 0"),
    ],
)
@pytest.mark.parametrize("training", [True, False])
def test_a_shape_that_does_not_fit_is_an_error(net, shape, text, training):
    with pytest.raises(InputError, match=text):
        net.forward(np.ones(shape), training=training)
    with pytest.raises(InputError, match=text):
        net.predict(np.ones(shape), batch_size=2)


@pytest.mark.parametrize("training", [True, False])
def test_layout_makes_no_difference(net, rng, training):
    """The GEMM of another layout may add in another order; all else is the same."""
    x = rng.standard_normal((8, 5)).astype(np.float32)
    wide = np.zeros((16, 10), np.float32)
    wide[::2, ::2] = x
    backwards = np.ascontiguousarray(x[::-1, ::-1])[::-1, ::-1]
    shared = np.ascontiguousarray(x.T).T
    frozen = x.copy()
    frozen.flags.writeable = False
    expected = net.forward(x, training=training, step=FIRST)
    grads = net.gradients()
    dx = expected.pullback(np.ones((8, 2), np.float32), grads)
    for given in (np.asfortranarray(x), wide[::2, ::2], backwards, shared, frozen):
        np.testing.assert_array_equal(given, x)
        forward = net.forward(given, training=training, step=FIRST)
        np.testing.assert_allclose(forward.output, expected.output, rtol=0, atol=1e-5)
        np.testing.assert_allclose(forward.pending.array, expected.pending.array, rtol=0, atol=1e-5)
        other = net.gradients()
        np.testing.assert_allclose(forward.pullback(np.ones((8, 2), np.float32), other), dx, rtol=0, atol=1e-5)
        np.testing.assert_allclose(other.array, grads.array, rtol=0, atol=1e-4)


@pytest.mark.parametrize("batch_size", [1, 2, 7, 8, 9, 100])
def test_predicting_in_batches_is_predicting_at_once(rng, batch_size):
    net = collected(Sequential(Dense(5, 6), BatchNorm(6), Dense(6, 2), backend="numpy", dtype="float64"), rng)
    for shape in ((8, 5), (8, 3, 5)):
        x = rng.standard_normal(shape)
        y = net.predict(x, batch_size=batch_size)
        assert y.shape == (*shape[:-1], 2)
        np.testing.assert_allclose(y, net.forward(x, training=False).output, rtol=0, atol=1e-13)


@pytest.mark.parametrize("batch_size", [0, -1, 2.5, "8", None])
def test_a_batch_size_is_a_whole_number_from_one_up(net, batch_size):
    with pytest.raises(InputError, match=r"^predict: batch_size must be an integer of at least 1"):
        net.predict(np.ones((3, 5)), batch_size=batch_size)


def test_samples_that_are_not_one_a_row_are_an_error(net):
    with pytest.raises(InputError, match=r"^Sequential: samples must have one index per row \(3\), got shape \(4,\)"):
        net.forward(np.ones((3, 5)), training=True, samples=np.arange(4))


def test_training_must_be_said(net):
    with pytest.raises(TypeError, match="training"):
        net.forward(np.ones((3, 5)))


def test_arrays_of_every_library_go_into_every_network(backend, rng):
    x = rng.standard_normal((6, 5)).astype(np.float32)
    nets = []
    for name in ("numpy", backend):
        layers = Dense(5, 6), BatchNorm(6), Activation("relu"), Dropout(0.3), Dense(6, 2)
        nets.append(collected(Sequential(*layers, backend=name), np.random.default_rng(2)))
    there = backend.asarray(x)
    for given in (x, there, x.tolist()):
        for net in nets:
            y = net.predict(given)
            assert type(y) is type(net.parameters.array)
            np.testing.assert_allclose(net.backend.to_numpy(y), nets[0].predict(x), rtol=0, atol=1e-6)
            parts = net.predict(given, batch_size=4)
            np.testing.assert_allclose(net.backend.to_numpy(parts), nets[0].predict(x), rtol=0, atol=1e-6)
    samples, step = np.arange(6)[::-1].copy(), np.asarray([3])
    there = nets[1].forward(x, training=True, samples=samples, step=step).output
    here = nets[0].forward(x, training=True, samples=samples, step=step).output
    np.testing.assert_allclose(nets[1].backend.to_numpy(there), here, rtol=0, atol=1e-5)


def test_a_memory_mapped_file_is_predicted_from_in_batches(net, rng, tmp_path):
    x = rng.standard_normal((9, 5)).astype(np.float32)
    np.save(tmp_path / "x.npy", x)
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    np.testing.assert_array_equal(net.predict(mapped, batch_size=4), net.predict(x, batch_size=4))
