"""A network's precision: dtypes in storage, and the 16-bit copy that products read."""

import sys
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import bnengine as bn
from bnengine.arrays.backend import Backend, get_backend
from bnengine.errors import InputError
from bnengine.network.precision import resolve_precision

NARROW = ("float16", "bfloat16")


@pytest.fixture(params=NARROW)
def precision(request: pytest.FixtureRequest, require: Any) -> str:
    if request.param == "bfloat16":
        require("ml_dtypes")
    return str(request.param)


@pytest.fixture(params=["numpy", "torch"])
def backend(request: pytest.FixtureRequest, require: Any) -> Backend:
    """The libraries that have 16 bits on a CPU."""
    require(request.param)
    return get_backend(request.param)


def net(**options: Any) -> bn.Sequential:
    layers = [bn.Dense(6, 8), bn.BatchNorm(8), bn.Activation("relu"), bn.Dense(8, 5), bn.Activation("tanh")]
    residual = bn.Residual(bn.Dense(5, 5), bn.BatchNorm(5)), bn.Activation("gelu"), bn.Dropout(0.2)
    return bn.Sequential(*layers, *residual, bn.Dense(5, 3), **{"backend": "numpy", **options})


def name_of(array: Any) -> str:
    return str(array.dtype).rsplit(".", 1)[-1]


def shadow_is_rounded(network: bn.Sequential) -> bool:
    """By NumPy's own rounding, bit for bit."""
    read = network.backend.to_numpy
    held = read(network.copy16.array)
    return bool(held.tobytes() == read(network.parameters.array).astype(held.dtype).tobytes())


def test_activations_and_their_gradients_have_16_bits(backend, precision, rng):
    network = net(backend=backend, precision=precision)
    x = rng.standard_normal((9, 6))
    assert name_of(network.asarray(x)) == precision
    forward = network.forward(x, training=True)
    grads = network.gradients()
    dx = forward.pullback(backend.xp.ones_like(forward.output), grads)
    assert (name_of(forward.output), name_of(dx)) == (precision, precision)
    assert tuple(dx.shape) == (9, 6)
    assert {name_of(a) for a in (grads.array, network.parameters.array)} == {"float32"}
    assert {name_of(a) for a in (network.statistics.array, forward.pending.array)} == {"float64"}
    assert all(name_of(a) == "float32" for a in network.named_parameters().values())
    assert np.all(np.isfinite(backend.to_numpy(grads.array)))


def test_a_pass_in_16_bits_is_near_the_float32_pass(precision, rng):
    narrow, wide = net(precision=precision), net()
    for network in (narrow, wide):  # parameters that 16 bits have exactly
        network.parameters.array[...] = network.parameters.array.astype(narrow.copy16.array.dtype)
        network.refresh()
    x = rng.standard_normal((40, 6)).astype(narrow.copy16.array.dtype).astype(np.float32)
    unit, results = {"float16": 2.0**-11, "bfloat16": 2.0**-8}[precision], []
    for network in (narrow, wide):
        grads = network.gradients()
        forward = network.forward(x, training=True, dropout=False)
        forward.pullback(network.backend.asarray(np.ones((40, 3)), network.storage), grads)
        results.append((forward.output.astype(np.float64), grads.array.astype(np.float64)))
    for got, expected in zip(*results, strict=True):
        size = np.abs(expected).max()
        assert 0 < np.abs(got - expected).max() < 40 * unit * size


def test_predictions_come_in_the_network_s_dtype(precision, rng):
    network = net(precision=precision)
    network.statistics.array[0] = 10.0
    x = rng.standard_normal((9, 6))
    whole, parts = network.predict(x), network.predict(x, batch_size=4)
    assert whole.dtype == parts.dtype == np.float32
    np.testing.assert_array_equal(whole, network.forward(x, training=False).output.astype(np.float32))
    np.testing.assert_allclose(parts, whole, rtol=1e-2, atol=1e-2)


def test_the_16_bit_copy_follows_the_parameters(backend, precision):
    network = net(backend=backend, precision=precision)
    assert shadow_is_rounded(network)
    network.reset(7)
    assert shadow_is_rounded(network)
    other = net(seed=3)
    network.load_state_dict(other.state_dict())
    assert shadow_is_rounded(network)
    network.named_parameters()["0.W"][...] = 0.1
    assert not shadow_is_rounded(network)
    network.forward(np.ones((4, 6)), training=True)
    assert shadow_is_rounded(network)


def test_full_precision_has_no_16_bit_copy():
    network = net()
    assert network.copy16 is None
    handles = network.named_handles()
    assert handles["0.W"].operand is handles["0.W"].value
    assert "precision" not in network.summary()


def test_the_summary_names_the_precision_and_counts_the_shadow(precision):
    plain, network = net(), net(precision=precision)
    size = network.parameters.array.size
    held = size * 4 + network.statistics.array.size * 8
    assert f"{held:,} bytes with statistics" in plain.summary()
    text = f"{held + 2 * size:,} bytes with statistics and a copy in {precision}; precision {precision}"
    assert text in network.summary()


def test_a_saved_network_loads_in_any_precision(precision, tmp_path, rng):
    network = net(precision=precision)
    network.statistics.array[0] = 10.0
    bn.save(tmp_path / "a.safetensors", network)
    x = rng.standard_normal((5, 6))
    plain = bn.load(tmp_path / "a.safetensors", backend="numpy")
    assert (plain.precision, plain.copy16) == ("highest", None)
    assert plain.parameters.array.tobytes() == network.parameters.array.tobytes()
    again = bn.load(tmp_path / "a.safetensors", backend="numpy", precision=precision)
    assert again.precision == precision
    np.testing.assert_array_equal(again.predict(x), network.predict(x))
    assert bn.Sequential.from_config(network.config(), backend="numpy").precision == precision


def test_a_file_without_a_precision_has_full_precision():
    config = net().config()
    del config["precision"]
    assert bn.Sequential.from_config(config, backend="numpy").precision == "highest"


class Widening(bn.layers.Layer):
    """Forgets to give its output back in the dtype of its input."""

    def forward(self, x: Any, run: Any) -> Any:  # noqa: ARG002
        return x * np.float64(2), None

    def __repr__(self) -> str:
        return "Widening()"


@pytest.mark.parametrize("name", ["highest", "float16"])
def test_a_layer_of_one_s_own_that_changes_the_dtype_is_named(name):
    network = bn.Sequential(bn.Dense(6, 8), Widening(), bn.Dense(8, 3), backend="numpy", precision=name)
    text = {"highest": "float32", "float16": "float16"}[name]
    with pytest.raises(
        InputError, match=rf"^Widening\(\), layer 1: the output must have the dtype of the input, {text}, got float64"
    ):
        network.forward(np.ones((4, 6), np.float32), training=True)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"precision": "half"}, r"precision must be 'highest', 'tf32', 'bfloat16' or 'float16', got 'half'"),
        ({"precision": 16}, r"precision must be .*, got 16"),
        ({"precision": "tf32"}, r"the backend is numpy. Take precision 'highest', or backend"),
        ({"precision": "float16", "dtype": "float64"}, r"needs dtype 'float32', got 'float64'. Take dtype 'float32'"),
        ({"precision": "tf32", "dtype": "float64"}, r"needs dtype 'float32', got 'float64'. Take dtype 'float32'"),
    ],
)
def test_a_precision_that_cannot_be_is_refused_with_its_cure(options, message):
    with pytest.raises(InputError, match=f"^Sequential: .*{message}"):
        net(**options)


def test_a_library_without_16_bits_refuses_them(require):
    require("array_api_strict")
    with pytest.raises(
        InputError, match=r"^Sequential: precision 'float16': array_api_strict has no such dtype. Otherwise take"
    ):
        net(precision="float16", backend="array_api_strict")


def test_bfloat16_without_its_package_names_the_cure(monkeypatch):
    monkeypatch.setitem(sys.modules, "ml_dtypes", None)
    with pytest.raises(
        InputError,
        match=r"^Sequential: precision 'bfloat16': .*Run `pip install ml_dtypes`, or take float16\. Otherwise",
    ):
        net(precision="bfloat16")


@pytest.mark.parametrize("capability", ["80", "90", "120"])
def test_tf32_begins_with_compute_capability_8(capability):
    backend = SimpleNamespace(name="cupy", on_gpu=True, device=SimpleNamespace(compute_capability=capability))
    assert resolve_precision("tf32", "float32", backend) == ("float32", "tf32")


def test_an_older_gpu_has_no_tf32_and_the_error_says_so():
    backend = SimpleNamespace(name="cupy", on_gpu=True, device=SimpleNamespace(compute_capability="75"))
    with pytest.raises(InputError, match=r"compute capability 7\.5, and tf32 needs 8\.0. Take precision"):
        resolve_precision("tf32", "float32", backend)
