"""Folded networks: the same function to the bound that their certificate states, refused where that is loose."""

from itertools import pairwise
from math import inf

import numpy as np
import pytest

import bnengine as bn
from bnengine.data import Dataset, Preprocessing
from bnengine.errors import InputError
from bnengine.inspect import fold
from bnengine.lab.explain.nets import Training, accuracy, logits, perceptron
from bnengine.lab.explain.setting import Setting
from bnengine.layers import Activation, BatchNorm, Dense, Dropout, Residual
from bnengine.ops.activations import NONLINEAR
from bnengine.optim.optimizers import SGD
from tests.inspect.nets import filled

STRUCTURES = {
    "after a Dense": (lambda: (Dense(4, 5), BatchNorm(5), Activation("relu"), Dense(5, 3)), ["1"], {}),
    "after a Dense with a bias": (lambda: (Dense(4, 5, bias=True), BatchNorm(5), Activation("gelu")), ["1"], {}),
    "after an activation": (lambda: (Dense(4, 5), Activation("tanh"), BatchNorm(5), Dense(5, 3)), ["2"], {}),
    "before and after one Dense": (lambda: (BatchNorm(4), Dense(4, 5), BatchNorm(5)), ["0", "2"], {}),
    "across dropouts": (
        lambda: (Dense(4, 5), Activation("relu"), Dropout(0.3), BatchNorm(5), Dropout(0.2), Dense(5, 3)), ["3"], {}
    ),
    "two for one Dense": (
        lambda: (Activation("relu"), BatchNorm(4), BatchNorm(4), Dense(4, 3)), ["2"],
        {"1": "no Dense is adjacent"},
    ),
    "none adjacent": (lambda: (Dense(4, 5), Activation("relu"), BatchNorm(5), Activation("sigmoid")), [],
                       {"2": "no Dense is adjacent"}),
    "in a residual, after it and at its end": (
        lambda: (
            Dense(4, 5), BatchNorm(5),
            Residual(Dense(5, 6), BatchNorm(6), Activation("relu"), Dense(6, 5), BatchNorm(5)), Activation("relu"),
            Residual(Activation("relu"), BatchNorm(5)), BatchNorm(5), Dense(5, 2),
        ),
        ["1", "2.1", "2.4", "5"], {"4.1": "no Dense is adjacent"},
    ),
    "without gamma and beta": (lambda: (Dense(4, 5), BatchNorm(5, gamma=False, beta=False)), ["1"], {}),
    "another eps, a slope": (lambda: (Dense(4, 5), BatchNorm(5, eps=0.5), Activation("leaky_relu", slope=0.3)), ["1"],
                             {}),
}  # fmt: skip


def probe(network: bn.Sequential, rows: int = 40) -> np.ndarray:
    return (np.random.default_rng(9).normal(size=(rows, network.inputs or 4)) * 2 + 1).astype(network.dtype)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", STRUCTURES)
def test_every_place_of_a_batch_norm_folds_to_the_same_function(name: str, dtype: str) -> None:
    layers, folded, kept = STRUCTURES[name]
    network = filled(*layers(), dtype=dtype)
    x = probe(network)
    found, certificate = fold(network, probe=x)
    assert (list(certificate.folded), certificate.kept) == (folded, kept)
    assert sum(name.endswith("gamma") for name in found.named_parameters()) == len(
        [place for place in kept if f"{place}.gamma" in network.named_parameters()]
    )
    apart = np.max(np.abs(found.predict(x).astype(float) - network.predict(x)))
    assert apart == certificate.measured
    assert apart <= certificate.bound < (1e-3 if dtype == "float32" else 1e-12)
    assert certificate.rows == 40


def test_the_numbers_of_both_ways_are_those_of_the_formulas() -> None:
    network = filled(Dense(2, 3, bias=True), BatchNorm(3), Activation("relu"), BatchNorm(3), Dense(3, 2))
    p, s = network.named_parameters(), network.named_statistics()
    found = fold(network, limit=1).network.named_parameters()
    first, second = (p[f"{i}.gamma"] / np.sqrt(s[f"{i}.statistics"][2] + 1e-5) for i in (1, 3))
    np.testing.assert_allclose(found["0.W"], p["0.W"] * first, rtol=1e-13)
    np.testing.assert_allclose(
        found["0.b"], (p["0.b"] - s["1.statistics"][1]) * first + p["1.beta"], rtol=1e-12, atol=1e-14
    )
    np.testing.assert_allclose(found["2.W"], second[:, None] * p["4.W"], rtol=1e-13)
    shift = p["3.beta"] - s["3.statistics"][1] * second
    np.testing.assert_allclose(found["2.b"], shift @ p["4.W"] + p["4.b"], rtol=1e-12, atol=1e-14)


def test_a_layer_used_twice_keeps_its_batch_norm() -> None:
    dense, norm = Dense(5, 5), BatchNorm(5)
    network = filled(Dense(4, 5), dense, BatchNorm(5), dense, norm, Activation("relu"), norm)
    found, certificate = fold(network, probe=probe(network), limit=1)
    assert certificate.folded == ()
    assert certificate.kept == {
        "2": "its Dense is used twice", "4": "it is used twice", "6": "it is used twice"
    }  # fmt: skip
    np.testing.assert_array_equal(found.predict(probe(network)), network.predict(probe(network)))


@pytest.mark.parametrize("seed", range(20))
def test_the_bound_holds_for_adversarial_numbers(seed: int) -> None:
    rng = np.random.default_rng(seed)
    widths = [4, *rng.integers(3, 40, size=3), 2]
    layers = []
    for a, b in pairwise(widths[:-1]):
        kind = str(rng.choice(NONLINEAR))
        order = [BatchNorm(int(b)), Activation(kind)]
        layers += [Dense(int(a), int(b), bias=True), *(order if rng.integers(2) else order[::-1])]
    network = filled(*layers, Dense(int(widths[-2]), 2), dtype="float32", seed=seed, spread=10.0 ** rng.integers(-5, 5))
    state = network.state_dict()
    for name in state:
        if name.endswith("running_mean"):
            state[name] = state[name] * 10.0 ** rng.integers(0, 5)
    network.load_state_dict(state)
    certificate = fold(network, probe=probe(network, 200), limit=inf).certificate
    assert certificate.measured <= certificate.bound
    assert certificate.bound > 0


@pytest.mark.parametrize(("kind", "factor"), [("running_var", 1e-9), ("gamma", 1e6), ("running_mean", 1e7)])
def test_a_loose_bound_is_refused_unless_allowed(kind: str, factor: float) -> None:
    network = filled(Dense(4, 5), BatchNorm(5), Activation("relu"), Dense(5, 3), dtype="float32")
    x = probe(network)
    tight = fold(network, probe=x).certificate
    state = network.state_dict()
    state[f"1.{kind}"] = state[f"1.{kind}"] * factor
    network.load_state_dict(state)
    with pytest.raises(InputError, match=r"fold: the outputs may differ by .*limit 0\.01\. A BatchNorm multiplies by"):
        fold(network, probe=x)
    loose = fold(network, probe=x, limit=inf).certificate
    assert loose.bound > 50 * tight.bound
    assert loose.measured <= loose.bound


def test_a_folded_network_saves_loads_and_predicts(tmp_path) -> None:
    raw = Setting().dataset
    network = perceptron((64, 32, 32, 10), seed=0)
    network.preprocessing = Preprocessing.fit(Dataset(x=np.asarray(raw.x), y=raw.y))
    ready = network.preprocessing.inputs(raw.x, "float32", name="x", rows=np.arange(len(raw)))
    Training(network, SGD(), ready, np.asarray(raw.y), rate=0.1).run(200)
    found, certificate = fold(network, probe=ready)
    assert accuracy(found, ready, np.asarray(raw.y)) == accuracy(network, ready, np.asarray(raw.y)) > 0.9
    assert certificate.folded == ("1", "4")
    assert not found.named_statistics()
    bn.save(tmp_path / "folded.safetensors", found)
    again = bn.load(tmp_path / "folded.safetensors")
    assert again.predict(ready).tobytes() == found.predict(ready).tobytes()
    np.testing.assert_array_equal(bn.predict(again, raw.x).labels, bn.predict(network, raw.x).labels)
    assert "folded 1, 4" in str(certificate)


def test_the_bound_of_two_layers_is_that_of_the_formula() -> None:
    network = filled(Dense(4, 5, bias=True), BatchNorm(5), Dense(5, 3), dtype="float32")
    x, u = probe(network).astype(float), 2.0**-24
    p = {name: array.astype(float) for name, array in network.named_parameters().items()}
    _, mean, var = network.named_statistics()["1.statistics"]
    s = p["1.gamma"] / np.sqrt(var + 1e-5)
    folded, shift = p["0.W"] * s, (p["0.b"] - mean) * s + p["1.beta"]
    z = x @ folded + shift
    size = np.abs(x) @ np.abs(folded) + np.abs(shift)
    own = np.abs(x) @ np.abs(p["0.W"]) + np.abs(p["0.b"])
    normal = np.abs(z - p["1.beta"]) + np.abs(p["1.gamma"]) + np.abs(p["1.beta"])
    error = 11 * u * size + np.abs(s) * 10 * u * own + 10 * u * normal
    after = 20 * u * (np.abs(z) @ np.abs(p["2.W"]) + np.abs(p["2.b"]))
    expected = np.max(error @ np.abs(p["2.W"]) + after)
    assert fold(network, probe=x).certificate.bound == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("activation", ["relu", "tanh", "gelu"])
def test_the_bound_of_a_deep_network_stays_below_the_limit(activation: str) -> None:
    draw = Setting().centered(0)
    network = perceptron((64, *[48] * 6, 10), activation=activation, seed=0)
    Training(network, SGD(), draw.x, draw.y, rate=0.1).run(100)
    certificate = fold(network, probe=draw.x_valid).certificate
    assert certificate.folded == ("1", "4", "7", "10", "13", "16")
    assert 1e-7 < certificate.measured < certificate.bound < 0.01


def test_the_original_does_not_change() -> None:
    network = filled(Dense(4, 5), BatchNorm(5), Activation("relu"), Dense(5, 3))
    before = {name: array.tobytes() for name, array in network.state_dict().items()}
    found = fold(network, limit=1).network
    for array in found.named_parameters().values():
        array[...] = 7
    assert {name: array.tobytes() for name, array in network.state_dict().items()} == before


def test_mistakes_have_a_cure() -> None:
    network = filled(Dense(4, 5), BatchNorm(5))
    uncollected = filled(Dense(4, 5), BatchNorm(5))
    uncollected.reset_statistics()
    for given, options, message in (
        (network, {"limit": 0}, "fold: limit must be above 0, got 0"),
        (filled(Activation("relu")), {}, "fold: the network takes inputs of any width"),
        (network, {"probe": np.zeros((2, 3))}, "the input must have . features, got 3"),
        (uncollected, {}, "no statistics"),
    ):
        with pytest.raises(InputError, match=message):
            fold(given, **options)


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_in_16_bits_the_cure_is_to_fold_before_rounding(tmp_path, precision) -> None:
    draw = Setting().centered(0)
    network = perceptron((64, 32, 32, 10), seed=0)
    Training(network, SGD(), draw.x, draw.y, rate=0.1).run(100)
    bn.save(tmp_path / "model.safetensors", network)
    narrow = bn.load(tmp_path / "model.safetensors", precision=precision)
    message = rf"limit 0\.01\. That is the rounding of {precision} alone; .*load\(FILE, .*'highest'.*{precision}"
    with pytest.raises(InputError, match=message):
        fold(narrow, probe=draw.x_valid)
    x = narrow.checked(draw.x_valid.astype(np.float32))
    unfolded, exact = logits(narrow, x), logits(network, x)
    assert np.max(np.abs(unfolded - exact)) > 1e-3  # what rounding does without any folding
    folded, certificate = fold(bn.load(tmp_path / "model.safetensors", precision="highest"), probe=draw.x_valid)
    assert certificate.bound <= 0.01
    bn.save(tmp_path / "folded.safetensors", folded)
    rounded = logits(bn.load(tmp_path / "folded.safetensors", precision=precision), x)
    assert np.max(np.abs(rounded - exact)) <= 2 * np.max(np.abs(unfolded - exact))
    assert np.mean(np.argmax(rounded, axis=1) == draw.y_valid) >= accuracy(network, x, draw.y_valid) - 0.01


def test_a_bound_that_is_loose_in_any_precision_has_its_cause() -> None:
    network = filled(Dense(4, 5), BatchNorm(5), Activation("relu"), Dense(5, 3), dtype="float32")
    state = network.state_dict()
    state["1.running_var"] = state["1.running_var"] * 1e-12
    state["1.gamma"] = state["1.gamma"] * 1e6
    narrow = bn.Sequential.from_config(network.config(), precision="bfloat16")
    narrow.load_state_dict(state)
    with pytest.raises(InputError, match=r"limit 0\.01\. A BatchNorm multiplies by"):
        fold(narrow, probe=probe(network))
