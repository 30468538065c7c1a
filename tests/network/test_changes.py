"""A user's layers are the network's layers: what is set on one takes effect at the next step, or is an error."""

import copy
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from bnengine.errors import InputError
from bnengine.fused.cpu._load import available
from bnengine.layers import Activation, BatchNorm, Dense, Dropout, Layer, Residual, walk
from bnengine.network.sequential import Sequential
from bnengine.training.step import Step
from tests.network.support import batch, bits, step_of

ROWS = 12


def layers(**own: Any) -> list[Layer]:
    """Layers of every kind: `own` gives the options of those that the tests change."""
    norm, inner = own.get("norm", {}), own.get("inner", {})
    return [
        Dense(5, 6), BatchNorm(6, **norm), Activation(own.get("kind", "leaky_relu"), slope=own.get("slope")),
        Dropout(own.get("rate", 0.3)), Residual(Dense(6, 6), Dropout(0.2), BatchNorm(6, **inner)),
        Activation(own.get("outer", "relu")), Dense(6, 4), Activation(own.get("last", "tanh")), Dense(4, 2),
    ]  # fmt: skip


def made(dtype: str = "float32", **own: Any) -> Sequential:
    return Sequential(*layers(**own), backend="numpy", dtype=dtype, seed=5)


def data(dtype: str, i: int) -> Any:
    rng = np.random.default_rng(i)
    x, y = rng.standard_normal((ROWS, 5)) + 1, rng.standard_normal((ROWS, 2))
    return batch(x.astype(dtype), y.astype(dtype), first=i * ROWS)


# what is set, by the layer's place and the attribute, and the same as an option of `layers`
SETTINGS: dict[str, tuple[str, str, Any, dict[str, Any]]] = {
    "decay": ("1", "decay", 0.4, {"norm": {"decay": 0.4}}),
    "no decay": ("1", "decay", None, {"norm": {"decay": None}}),
    "decay inside": ("4.2", "decay", 0.4, {"inner": {"decay": 0.4}}),
    "variance": ("1", "variance", "biased", {"norm": {"variance": "biased"}}),
    "eps": ("1", "eps", 0.1, {"norm": {"eps": 0.1}}),
    "eps inside": ("4.2", "eps", 0.1, {"inner": {"eps": 0.1}}),
    "rate": ("3", "rate", 0.6, {"rate": 0.6}),
    "slope": ("2", "slope", 0.5, {"slope": 0.5}),
    "kind": ("2", "kind", "tanh", {"kind": "tanh"}),
    "kind, to one that stays apart": ("7", "kind", "gelu", {"last": "gelu"}),
    "kind after a sum": ("5", "kind", "identity", {"outer": "identity"}),
}
WAYS: dict[str, Callable[[Sequential, list[Layer], str], Any]] = {
    "the user's layer": lambda _, own, place: dict(walk(own))[place],
    "network.layers": lambda network, _, place: dict(walk(network.layers))[place],
    "network[i]": lambda network, _, place: dict(walk(network))[place],
}


def set_on(network: Sequential, own: list[Layer], way: str, setting: str) -> None:
    place, name, value, _ = SETTINGS[setting]
    setattr(WAYS[way](network, own, place), name, value)


@pytest.mark.parametrize(
    ("setting", "replay", "freeze"),
    [
        *((setting, replay, None) for setting in SETTINGS for replay in (True, False)),
        *((setting, True, freeze) for setting in ("decay", "eps") for freeze in ("statistics", "normalization")),
    ],
)
def test_a_change_counts_from_the_next_step_on(setting: str, replay: bool, freeze: Any) -> None:
    """After steps that were recorded, a step gives the bits of a network that was built so and holds that state."""
    own = layers()
    network = Sequential(*own, backend="numpy", seed=5)
    other = made(**SETTINGS[setting][3])
    steps = [step_of(n, replay=replay) for n in (network, other)]
    for i in range(4):
        if freeze and i == 2:
            network.freeze(freeze)
            other.freeze(freeze)
        steps[0]([data("float32", i)])
    set_on(network, own, "the user's layer", setting)
    other.load_state_dict(network.state_dict())
    steps[1].load_state_dict(steps[0].state_dict())
    steps[1].schedule([0.1])
    for i in range(4, 8):
        for step in steps:
            step([data("float32", i)])
        assert bits(steps[0]) == bits(steps[1])
    if replay and not available():
        assert [mode.how for mode in steps[0].modes()] == ["one call"]
    assert network.config() == other.config()
    x = data("float32", 9).x
    for _ in range(3):
        np.testing.assert_array_equal(network.predict(x), other.predict(x))


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("setting", ["decay", "eps inside", "rate", "kind"])
def test_every_way_to_a_layer_leads_to_the_same_one(setting: str, way: str) -> None:
    own = layers()
    network = Sequential(*own, backend="numpy", seed=5)
    step, other = step_of(network), step_of(made(**SETTINGS[setting][3]))
    set_on(network, own, way, setting)
    for i in range(3):
        for one in (step, other):
            one([data("float32", i)])
    assert bits(step) == bits(other)


@pytest.mark.parametrize("decay", [0.4, None])
def test_decay_is_that_of_the_statistics(decay: float | None) -> None:
    network, other = made(), made(norm={"decay": decay, "variance": "biased"})
    step, expected = step_of(network), step_of(other)
    step([data("float32", 0)])
    norm = network[1]
    assert isinstance(norm, BatchNorm)
    norm.statistics.decay, norm.statistics.unbiased = decay, False
    assert (norm.decay, norm.variance) == (decay, "biased")
    other.load_state_dict(network.state_dict())
    expected.load_state_dict(step.state_dict())
    expected.schedule([0.1])
    for i in range(1, 4):
        for one in (step, expected):
            one([data("float32", i)])
    assert bits(step) == bits(expected)


def test_a_change_is_felt_by_the_statistics() -> None:
    """The walks above compare two networks; here the number itself is computed by hand."""
    network = Sequential(BatchNorm(3), backend="numpy", dtype="float64")
    step = step_of(network)
    rng = np.random.default_rng(1)
    xs = rng.standard_normal((3, 8, 3))
    for x in xs[:2]:
        step([batch(x, np.zeros((8, 3)))])
    mean = network.state_dict()["0.running_mean"]
    network.layers[0].decay = 0.25
    step([batch(xs[2], np.zeros((8, 3)))])
    np.testing.assert_allclose(network.state_dict()["0.running_mean"], 0.25 * mean + 0.75 * xs[2].mean(0), rtol=1e-14)


def test_a_change_before_the_network_is_built_counts() -> None:
    norm = BatchNorm(3)
    norm.decay, norm.eps = None, 0.5
    network, other = (
        Sequential(layer, backend="numpy", dtype="float64") for layer in (norm, BatchNorm(3, decay=None, eps=0.5))
    )
    steps = [step_of(network), step_of(other)]
    for i in range(3):
        x = np.random.default_rng(i).standard_normal((6, 3))
        for step in steps:
            step([batch(x, np.zeros((6, 3)))])
    assert bits(steps[0]) == bits(steps[1])


def test_a_layer_that_stands_twice_changes_at_both_places() -> None:
    def built(eps: float) -> tuple[Step, BatchNorm]:
        shared = BatchNorm(4, eps=eps)
        return step_of(Sequential(shared, Activation("tanh"), Dense(4, 4), shared, backend="numpy")), shared

    (step, shared), (other, _) = built(1e-5), built(0.3)
    shared.eps = 0.3
    for i in range(3):
        x = np.random.default_rng(i).standard_normal((6, 4)).astype(np.float32)
        for one in (step, other):
            one([batch(x, x)])
    assert bits(step) == bits(other)


def test_an_activation_in_two_networks_changes_in_both() -> None:
    relu = Activation("relu")
    networks = [Sequential(Dense(3, 4), relu, backend="numpy", seed=i) for i in (0, 1)]
    x = np.random.default_rng(0).standard_normal((5, 3)).astype(np.float32)
    before = [[network.predict(x) for _ in range(3)][-1] for network in networks]
    relu.kind = "tanh"
    for network, old in zip(networks, before, strict=True):
        new = network.predict(x)
        np.testing.assert_allclose(new, np.tanh(x @ network.named_parameters()["0.W"]), rtol=1e-5, atol=1e-6)
        assert (new != old).any()


def test_another_kind_takes_its_own_slope_unless_one_was_given() -> None:
    given, usual = Activation("relu", slope=0.3), Activation("relu")
    Sequential(given, usual, backend="numpy")
    given.kind = usual.kind = "leaky_relu"
    assert (given.slope, usual.slope) == (0.3, Activation("leaky_relu").slope)


# -- what can no longer count ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("place", "name", "value"),
    [
        ("0", "inputs", 7), ("0", "outputs", 7), ("0", "bias", False), ("0", "weights", "glorot"), ("0", "W", None),
        ("0", "b", None), ("1", "channels", 5), ("1", "gamma", False), ("1", "beta", None), ("1", "statistics", None),
        ("4", "body", ()), ("4.2", "gamma", None),
    ],
)  # fmt: skip
def test_what_a_network_is_built_from_is_fixed(place: str, name: str, value: Any) -> None:
    network = made()
    layer = dict(walk(network.layers))[place]
    before, changes = getattr(layer, name), network.changes.count
    with pytest.raises(InputError, match=rf", layer {place}: {name} is fixed in a \w+, got .*Make a new layer"):
        setattr(layer, name, value)
    assert getattr(layer, name) is before
    assert network.changes.count == changes


@pytest.mark.parametrize(
    ("layer", "name", "value"),
    [
        (Dense(3, 4), "inputs", 7), (Dense(3, 4), "outputs", 7), (Dense(3, 4), "bias", False),
        (Dense(3, 4), "weights", "glorot"), (BatchNorm(4), "channels", 5), (BatchNorm(4), "gamma", False),
        (Dense(3, 4), "W", [3]), (Residual(Dense(3, 3)), "body", Dense(3, 3)),
    ],
)  # fmt: skip
def test_what_only_the_constructor_reads_is_fixed_before_a_network(layer: Layer, name: str, value: Any) -> None:
    before = getattr(layer, name)
    with pytest.raises(InputError, match=rf": {name} is fixed in a layer, got .*Make a new layer with it\."):
        setattr(layer, name, value)
    assert getattr(layer, name) is before


@pytest.mark.parametrize(
    ("layer", "name", "good", "bad"),
    [
        (BatchNorm(4), "eps", 0.5, 0.0), (BatchNorm(4), "decay", 0.5, 1.0), (BatchNorm(4), "variance", "biased", "all"),
        (BatchNorm(4), "one_value", "running", "skip"), (Activation("relu"), "kind", "tanh", "swish"),
        (Activation("leaky_relu"), "slope", 0.5, -0.5), (Dropout(0.5), "rate", 0.25, 1.0),
    ],
)  # fmt: skip
def test_a_layer_checks_what_is_set_before_a_network(layer: Layer, name: str, good: Any, bad: Any) -> None:
    setattr(layer, name, good)
    with pytest.raises(InputError, match=rf": {name} must be .*, got "):
        setattr(layer, name, bad)
    assert getattr(layer, name) == good


@pytest.mark.parametrize(
    ("place", "name", "value", "text"),
    [
        ("1", "decay", 1.0, r"decay must be .* got 1\.0"),
        ("1", "eps", -1.0, r"eps must be .* got -1\.0"),
        ("1", "variance", "both", "variance must .* got 'both'"),
        ("1", "one_value", "skip", "one_value must .* got 'skip'"),
        ("2", "kind", "swish", "kind must be .* got 'swish'"),
        ("2", "slope", -0.1, r"slope must be a finite number of at least 0, got -0\.1"),
        ("3", "rate", 1.0, r"rate must be .* got 1\.0"),
    ],
)
def test_what_the_constructor_refuses_is_refused_later(place: str, name: str, value: Any, text: str) -> None:
    network = made()
    layer = dict(walk(network.layers))[place]
    before = getattr(layer, name)
    with pytest.raises(InputError, match=text):
        setattr(layer, name, value)
    assert getattr(layer, name) == before


@pytest.mark.parametrize(
    ("place", "name", "text"),
    [("1", "epsilon", "decay, eps, one_value, variance"), ("0", "activation", "nothing"), ("3", "p", "rate")],
)
def test_an_attribute_that_a_layer_does_not_have_is_refused(place: str, name: str, text: str) -> None:
    network = made()
    layer = dict(walk(network.layers))[place]
    with pytest.raises(InputError, match=rf", layer {place}: there is no attribute {name}, .*What can be set: {text}"):
        setattr(layer, name, 0.5)
    assert not hasattr(layer, name)


def test_a_layer_of_ones_own_may_have_more_attributes() -> None:
    class Counting(BatchNorm):
        def forward(self, x: Any, run: Any) -> Any:
            self.calls = getattr(self, "calls", 0) + 1
            return super().forward(x, run)

    layer = Counting(5)
    network = Sequential(layer, Activation("relu"), Dense(5, 2), backend="numpy")
    for _ in range(3):
        network.forward(data("float32", 0).x, training=True)
    assert layer.calls == 3


@pytest.mark.parametrize(
    ("name", "cure"), [("shape", "Set it before"), ("decays", "Set it before"), ("value", r"Write into value\[")]
)
def test_what_the_buffers_are_laid_out_by_is_fixed(name: str, cure: str) -> None:
    network = made()
    handle = network.named_handles()["1.gamma"]
    before = getattr(handle, name)
    with pytest.raises(InputError, match=rf"^Parameter: {name} is fixed in a network, got None\. {cure}"):
        setattr(handle, name, None)
    assert getattr(handle, name) is before


@pytest.mark.parametrize(
    ("name", "attribute", "freeze"),
    [
        ("1.gamma", "frozen", ("parameters", "1.gamma")),
        ("1.statistics", "frozen", ("statistics", "1")),
        ("1.statistics", "use_running", ("normalization", "1")),
    ],
)
def test_a_handle_frozen_by_hand_is_frozen_from_the_next_step(
    name: str, attribute: str, freeze: tuple[Any, str]
) -> None:
    steps = [step_of(made()) for _ in range(2)]
    for i in range(9):
        if i == 3:
            setattr(steps[0].network.named_handles()[name], attribute, True)
            steps[1].network.freeze(*freeze)
        if i == 6:
            setattr(steps[0].network.named_handles()[name], attribute, False)
            steps[1].network.thaw(*freeze)
        for step in steps:
            step([data("float32", i)])
        assert bits(steps[0]) == bits(steps[1])
    assert len(steps[0].plans) == 2


def test_the_statistics_refuse_a_decay_outside_0_to_1() -> None:
    norm = BatchNorm(4)
    with pytest.raises(InputError, match=r"^Statistics: decay must be .* got 2"):
        norm.statistics.decay = 2
    assert norm.decay == 0.9


@pytest.mark.parametrize(("before", "after"), [("identity", "tanh"), ("tanh", "identity")])
def test_a_kind_that_decides_on_a_bias_is_refused(before: str, after: str) -> None:
    activation = Activation(before)
    network = Sequential(Dense(3, 4), activation, BatchNorm(4), backend="numpy")
    x = np.random.default_rng(0).standard_normal((5, 3)).astype(np.float32)
    output = network.forward(x, training=True).output
    text = (
        rf"^Activation\('{before}'\), layer 1: kind decides whether the network has 0\.b, .*got '{after}'\. Build a new"
    )
    with pytest.raises(InputError, match=text):
        activation.kind = after
    assert activation.kind == before
    np.testing.assert_array_equal(network.forward(x, training=True).output, output)
    activation.kind = before  # no change, and no error


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, lambda layer: pickle.loads(pickle.dumps(layer))])
def test_a_copy_of_a_layer_is_in_no_network(copied: Callable[[Layer], Any]) -> None:
    network = made()
    changes = network.changes.count
    again = copied(network[1])
    again.eps, again.gamma = 0.5, None
    assert network.changes.count == changes
    assert network[1].config()["eps"] == 1e-5
    assert again.name == "BatchNorm(6)"


# -- one list of layers ------------------------------------------------------------------------------------------------


def test_the_layers_of_a_network_are_the_users() -> None:
    own = layers()
    network = Sequential(*own, backend="numpy")
    assert len(network) == len(own)
    for i, layer in enumerate(own):
        assert network.layers[i] is network[i] is layer
    assert network[-1] is own[-1]
    assert network[1:3] == tuple(own[1:3])
    assert all(a is b for a, b in zip(network, own, strict=True))
    with pytest.raises(AttributeError):
        network.layers = ()
    with pytest.raises(IndexError):
        network[len(own)]


def test_places_agree_in_layers_state_and_summary() -> None:
    network = made()
    places = dict(walk(network.layers))
    state = {name.rpartition(".")[0] for name in network.state_dict()}
    assert state == {place for place, layer in places.items() if layer.handles()}
    shown = [line.split()[0] for line in network.summary().splitlines()[2:] if line[0].isdigit()][: len(places)]
    assert shown == list(places)
    for place, layer in places.items():
        for name, handle in layer.handles().items():
            full = f"{place}.{name}"
            assert (network.named_handles().get(full) is handle) == (full not in network.cancelled)
        assert layer.name == f"{layer!r}, layer {place}"


def test_the_fused_view_has_each_layer_once_and_changes_none() -> None:
    own = layers()
    before = [vars(layer).copy() for layer in own]
    network = Sequential(*own, backend="numpy")
    view = network.fused
    assert [(here.place, here.after and here.after.place) for here in view] == [
        ("0", None), ("1", "2"), ("3", None), ("4", None), ("6", "7"), ("8", None),
    ]  # fmt: skip
    assert [here.layer for here in view] == [own[int(here.place)] for here in view]
    assert view[0].cancelled == {"b"}
    assert (view[3].sums, view[3].body[-1].after.layer) == (True, own[5])
    assert network.fused is view
    for layer, old in zip(own, before, strict=True):
        assert {k: v for k, v in vars(layer).items() if k not in ("label", "changes")} == old
