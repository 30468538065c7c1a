"""State out and in, all or nothing; freezing by name."""

import numpy as np
import pytest

from bnengine.errors import InputError
from bnengine.layers import Activation, BatchNorm, Dense, Residual
from bnengine.network.sequential import Sequential
from tests.network.support import collected, network_bits


def network(seed=0, **options):
    layers = (
        Dense(3, 4),
        BatchNorm(4),
        Activation("relu"),
        Residual(Dense(4, 4), BatchNorm(4, gamma=False)),
        Dense(4, 2),
    )
    return Sequential(*layers, **{"backend": "numpy", "dtype": "float64", "seed": seed, **options})


NAMES = {
    "0.W": (3, 4), "1.gamma": (4,), "1.beta": (4,), "1.running_count": (4,), "1.running_mean": (4,),
    "1.running_var": (4,),
    "3.0.W": (4, 4), "3.1.beta": (4,), "3.1.running_count": (4,), "3.1.running_mean": (4,), "3.1.running_var": (4,),
    "4.W": (4, 2), "4.b": (2,),
}  # fmt: skip


def test_state_is_named_numpy_arrays_of_their_own(rng):
    net = collected(network(), rng)
    state = net.state_dict()
    assert {name: array.shape for name, array in state.items()} == NAMES
    running = net.named_statistics()["1.statistics"]
    for i, row in enumerate(("count", "mean", "var")):
        np.testing.assert_array_equal(state[f"1.running_{row}"], running[i])
        assert state[f"1.running_{row}"].dtype == np.float64
    before = network_bits(net)
    for array in state.values():
        array[...] = -1
    assert network_bits(net) == before


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_state_goes_around_bit_for_bit(rng, dtype):
    net, other = collected(network(dtype=dtype), rng), network(seed=5, dtype=dtype)
    assert network_bits(net) != network_bits(other)
    other.load_state_dict(net.state_dict())
    assert network_bits(net) == network_bits(other)
    x = rng.standard_normal((5, 3))
    np.testing.assert_array_equal(other.predict(x), net.predict(x))


def test_state_goes_between_libraries(backend, rng):
    net = collected(network(), rng)
    other = network(seed=5, backend=backend)
    other.load_state_dict(net.state_dict())
    for name, array in other.state_dict().items():
        assert isinstance(array, np.ndarray)
        np.testing.assert_array_equal(array, net.state_dict()[name])
    other.load_state_dict({name: backend.asarray(array) for name, array in net.state_dict().items()})
    np.testing.assert_array_equal(other.state_dict()["0.W"], net.state_dict()["0.W"])


def test_float64_state_is_rounded_but_statistics_are_not(rng):
    net, small = collected(network(), rng), network(dtype="float32")
    small.load_state_dict(net.state_dict())
    np.testing.assert_array_equal(small.state_dict()["0.W"], net.state_dict()["0.W"].astype(np.float32))
    np.testing.assert_array_equal(small.state_dict()["1.running_mean"], net.state_dict()["1.running_mean"])


def test_state_may_be_lists(rng):
    net, other = collected(network(), rng), network(seed=5)
    other.load_state_dict({name: array.tolist() for name, array in net.state_dict().items()})
    assert network_bits(net) == network_bits(other)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda s: s.pop("4.b"), "^load_state_dict: missing 4.b, unknown nothing. Build the network from the layers"),
        (lambda s: s.update({"5.W": s["4.W"]}), "^load_state_dict: missing nothing, unknown 5.W"),
        (lambda s: s.update({"9.b": s.pop("4.b")}), "missing 4.b, unknown 9.b"),
        (lambda s: s.pop("1.running_var"), "missing 1.running_var"),
        (
            lambda s: s.update({"4.W": s["4.W"].T}),
            r"^load_state_dict: 4.W must have shape \(4, 2\), got \(2, 4\)",
        ),
        (lambda s: s.update({"4.b": 0.0}), r"4.b must have shape \(2,\), got \(\)"),
        (lambda s: s.update({"3.1.running_mean": np.zeros(5)}), r"3.1.running_mean must have shape \(4,\), got \(5,\)"),
        (lambda s: s.update({"4.b": np.asarray(["a", "b"])}), "asarray"),
        (lambda s: s.update({"4.b": np.asarray([1j, 2j])}), "asarray"),
    ],
)
def test_a_state_that_does_not_fit_changes_nothing(rng, change, text):
    net, other = collected(network(), rng), network(seed=5)
    state = net.state_dict()
    change(state)
    before = network_bits(other)
    with pytest.raises(InputError, match=text):
        other.load_state_dict(state)
    assert network_bits(other) == before


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("1.running_var", -1e-3, "finite numbers of at least 0, got -0.001"),
        ("1.running_var", np.nan, "finite numbers of at least 0, got nan"),
        ("1.running_count", -5.0, "finite numbers of at least 0, got -5"),
        ("3.1.running_mean", np.inf, "finite numbers, got inf"),
        ("0.W", np.nan, "finite numbers, got nan"),
    ],
)
def test_a_state_that_no_training_leaves_is_refused(rng, name, value, text):
    net = collected(network(), rng)
    state, before = net.state_dict(), network_bits(net)
    state[name].flat[-1] = value
    with pytest.raises(InputError, match=f"^load_state_dict: {name} must hold {text}"):
        net.load_state_dict(state)
    assert network_bits(net) == before


def test_a_state_without_statistics_cannot_be_evaluated(rng):
    trained, fresh = collected(network(), rng), network()
    x = rng.standard_normal((4, 3))
    trained.predict(x)
    trained.load_state_dict(fresh.state_dict())
    with pytest.raises(InputError, match=r"^BatchNorm\(4\), layer 1: no statistics"):
        trained.predict(x)
    state = fresh.state_dict() | {k: v for k, v in collected(network(), rng).state_dict().items() if k.startswith("1.")}
    trained.load_state_dict(state)
    with pytest.raises(InputError, match=r"^BatchNorm\(4\), layer 3\.1: no statistics"):
        trained.predict(x)


# -- freezing ----------------------------------------------------------------------------------------------------------

NOTHING = {"parameters": [], "statistics": [], "normalization": []}


@pytest.mark.parametrize(
    ("what", "names", "expected"),
    [
        ("parameters", ("0.W",), {"parameters": ["0.W"]}),
        ("parameters", ("4",), {"parameters": ["4.W", "4.b"]}),
        ("parameters", ("3",), {"parameters": ["3.0.W", "3.1.beta"]}),
        ("parameters", ("3.0", "4.b"), {"parameters": ["3.0.W", "4.b"]}),
        ("affine", (), {"parameters": ["1.gamma", "1.beta", "3.1.beta"]}),
        ("affine", ("1.gamma",), {"parameters": ["1.gamma"]}),
        ("affine", ("3",), {"parameters": ["3.1.beta"]}),
        ("statistics", (), {"statistics": ["1.statistics", "3.1.statistics"]}),
        ("statistics", ("3.1",), {"statistics": ["3.1.statistics"]}),
        ("normalization", ("1",), {"normalization": ["1.statistics"]}),
        ("normalization", ("3",), {"normalization": ["3.1.statistics"]}),
        (
            "parameters", (), {"parameters": ["0.W", "1.gamma", "1.beta", "3.0.W", "3.1.beta", "4.W", "4.b"]},
        ),
    ],
)  # fmt: skip
def test_what_is_named_freezes_and_thaws(what, names, expected):
    net = network()
    assert net.frozen() == NOTHING
    net.freeze(what, *names)
    assert net.frozen() == NOTHING | expected
    net.freeze(what, *names)
    assert net.frozen() == NOTHING | expected
    net.thaw(what, *names)
    assert net.frozen() == NOTHING


def test_a_thaw_by_name_leaves_the_rest_frozen():
    net = network()
    net.freeze("parameters")
    net.thaw("affine", "1.beta")
    net.thaw("parameters", "4")
    assert net.frozen()["parameters"] == ["0.W", "1.gamma", "3.0.W", "3.1.beta"]


@pytest.mark.parametrize("verb", ["freeze", "thaw"])
@pytest.mark.parametrize(
    ("what", "names", "text"),
    [
        ("weights", (), "^freeze: what must be 'statistics', 'affine', 'normalization' or 'parameters', got 'weights'"),
        ("parameters", ("7",), "^freeze: no layer or parameter '7'.*0.W"),
        ("parameters", ("0", "0.b"), "'0.b'"),  # the bias that was cancelled
        ("parameters", ("3.",), "'3.'"),
        (
            "statistics",
            ("0",),
            "^freeze: no layer or parameter '0' that has statistics. Choose of 1.statistics, 3.1.statistics",
        ),
        ("affine", ("4",), "'4' that has affine"),
    ],
)
def test_freezing_an_unknown_name_or_kind_is_an_error(verb, what, names, text):
    net = network()
    with pytest.raises(InputError, match=text):
        getattr(net, verb)(what, *names)
    assert net.frozen() == NOTHING


def test_layer_1_is_not_layer_10():
    net = Sequential(*[Dense(2, 2) for _ in range(11)], backend="numpy")
    net.freeze("parameters", "1")
    assert net.frozen()["parameters"] == ["1.W", "1.b"]
