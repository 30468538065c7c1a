"""Optimizers: their moves against recursions written out here, their rows, slots, options and errors."""

import json
import re

import numpy as np
import pytest

from bnengine.contracts.update import RULE_CONTRACTS
from bnengine.errors import InputError
from bnengine.fused.cuda._load import folder
from bnengine.layers import BatchNorm, Dense
from bnengine.network.sequential import Sequential
from bnengine.ops.update import RULES
from bnengine.optim.optimizers import OPTIMIZERS, SGD, Adam, AdamW, Optimizer, RMSprop, get_optimizer
from tests.network.support import batch, step_of
from tests.optimizers import EVERY, FORMULAS, TABLE, VARIANTS, moved, optional

RATES = [0.1, 0.05, 0.2, 0.1, 0.01, 0.3]


CASES = {label: optimizer for label, (optimizer, _) in VARIANTS.items()} | {repr(one): one for one in EVERY}


@pytest.mark.parametrize("optimizer", CASES.values(), ids=CASES.keys())
@pytest.mark.parametrize("clip", [None, 0.05])
def test_six_steps_are_those_of_the_rule(rng, optimizer, clip):
    network = Sequential(Dense(4, 3), BatchNorm(3), Dense(3, 2), backend="numpy", dtype="float64", seed=5)
    step = step_of(network, optimizer, clip_norm=clip)
    step.schedule(RATES)
    expected = {name: array.copy() for name, array in network.named_parameters().items()}
    states = {name: {} for name in expected}
    for t, rate in enumerate(RATES, start=1):
        step([batch(rng.standard_normal((8, 4)), rng.standard_normal((8, 2)))])
        factor = 1.0 if clip is None else min(1.0, clip / step.report().norm)
        for name, handle in network.named_handles().items():
            if name in expected:
                g, decays = step.state.gradients[handle] * factor, name.endswith("W")
                expected[name] = moved(optimizer, expected[name], g, rate, t, states[name], decays=decays)
    for name, array in network.named_parameters().items():
        np.testing.assert_allclose(array, expected[name], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(
    ("optimizer", "slots"),
    [
        (SGD(), {"velocity": False}),
        (SGD(momentum=0.1), {"velocity": True}),
        (RMSprop(), {"square": True, "mean": False, "velocity": False}),
        (RMSprop(centered=True), {"square": True, "mean": True, "velocity": False}),
        (RMSprop(momentum=0.1), {"square": True, "mean": False, "velocity": True}),
        (Adam(), {"m": True, "v": True, "largest": False}),
        (Adam(amsgrad=True), {"m": True, "v": True, "largest": True}),
        (AdamW(), {"m": True, "v": True, "largest": False}),
    ],
)
def test_the_slots_of_a_variant_in_the_order_of_the_op(optimizer, slots):
    assert list(optimizer.slots().items()) == list(slots.items())
    assert ("parameters", *slots, "copy16") == optimizer.op.fields


def test_the_rows_of_the_table():
    assert SGD().row(0.1, 3) == (0.1,)
    assert RMSprop().row(0.1, 3) == (0.1,)
    assert Adam().row(0.1, 1) == (0.1, 1 - 0.9, 1 - 0.999)
    assert Adam(beta1=0.5, beta2=0.25).row(0.2, 3) == (0.2, 0.875, 1 - 0.25**3)
    assert Adam(bias_correction=False).row(0.1, 3) == (0.1, 1.0, 1.0)
    assert AdamW(beta1=0.0).row(0.1, 7)[1] == 1.0


def test_the_options_of_the_ops():
    assert SGD(0.9, True, 0.1).options() == {
        "momentum": 0.9, "nesterov": True, "weight_decay": 0.1, "decoupled": False,
    }  # fmt: skip
    assert RMSprop().options() == {
        "rho": 0.99, "eps": 1e-8, "momentum": 0.0, "weight_decay": 0.0, "eps_inside": False,
        "decoupled": False,
    }  # fmt: skip
    assert RMSprop(eps_placement="inside").options()["eps_inside"] is True
    assert Adam().options() == {
        "beta1": 0.9, "beta2": 0.999, "eps": 1e-8, "weight_decay": 0.0, "decoupled": False,
    }  # fmt: skip
    assert AdamW().options() == {
        "beta1": 0.9, "beta2": 0.999, "eps": 1e-8, "weight_decay": 0.01, "decoupled": True,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("cls", "options", "text"),
    [
        (
            SGD,
            {"momentum": 1.0},
            r"momentum must .*0 and below 1, got 1\.0\. It is the share of the old value",
        ),
        (SGD, {"momentum": -0.1}, r"momentum must .* got -0\.1"),
        (SGD, {"nesterov": True}, r"nesterov needs a momentum above 0, got 0\.0\. Give momentum=0\.9"),
        (SGD, {"weight_decay": -0.1}, r"weight_decay must .* got -0\.1"),
        (SGD, {"weight_decay": float("inf")}, r"weight_decay must .* got inf"),
        (SGD, {"weight_decay": float("nan")}, r"weight_decay must .* got nan"),
        (RMSprop, {"rho": 1.0}, r"rho must .* got 1\.0"),
        (RMSprop, {"rho": -0.5}, r"rho must .* got -0\.5"),
        (RMSprop, {"momentum": 1.5}, r"momentum must .* got 1\.5"),
        (RMSprop, {"eps": 0.0}, r"eps must .* got 0\.0"),
        (RMSprop, {"eps": float("inf")}, r"eps must .* got inf"),
        (RMSprop, {"eps_placement": "under"}, r"eps_placement must be 'outside' or 'inside', got 'under'"),
        (RMSprop, {"weight_decay": -1.0}, r"weight_decay must .* got -1\.0"),
        (Adam, {"beta1": 1.0}, r"beta1 must .* got 1\.0"),
        (Adam, {"beta2": 1.0}, r"beta2 must .* got 1\.0"),
        (Adam, {"beta2": -0.1}, r"beta2 must .* got -0\.1"),
        (Adam, {"eps": -1e-8}, r"eps must .* got -1e-08"),
        (Adam, {"weight_decay": -1.0}, r"weight_decay must .* got -1\.0"),
        (AdamW, {"beta1": 1.0}, r"beta1 must .* got 1\.0"),
        (AdamW, {"eps": 0.0}, r"eps must .* got 0\.0"),
        (AdamW, {"weight_decay": -1.0}, r"weight_decay must .* got -1\.0"),
    ],
)
def test_an_unusable_option_is_an_error_that_echoes_it(cls, options, text):
    with pytest.raises(InputError, match=rf"^{cls.__name__}: {text}"):
        cls(**options)


def test_the_edges_of_the_options_are_allowed():
    assert SGD(momentum=0.0, weight_decay=0.0).momentum == 0.0
    assert SGD(momentum=0.999).momentum == 0.999
    assert Adam(beta1=0.0, beta2=0.0, eps=1e-300).eps == 1e-300
    assert RMSprop(rho=0.0, weight_decay=1e300).weight_decay == 1e300


@pytest.mark.parametrize("optimizer", CASES.values(), ids=CASES.keys())
def test_a_configuration_gives_the_same_optimizer(optimizer):
    again = get_optimizer(json.loads(json.dumps(optimizer.config())))
    assert again == optimizer
    assert type(again) is type(optimizer)
    assert get_optimizer(optimizer) is optimizer


def test_names():
    assert {"sgd": SGD, "rmsprop": RMSprop, "adam": Adam, "adamw": AdamW}.items() <= OPTIMIZERS.items()
    assert OPTIMIZERS.keys() == TABLE.keys()
    for name, cls in OPTIMIZERS.items():
        assert get_optimizer(name) == cls()
        assert get_optimizer({"name": name}) == cls()
        assert issubclass(cls, Optimizer)
    assert Adam() != AdamW(weight_decay=0.0)


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ("nonesuch", "name must be 'sgd', .* got 'nonesuch'"),
        ({"name": "nonesuch"}, "name must .* got 'nonesuch'"),
        ({"momentum": 0.9}, "name must .* got None"),
        ({"name": "sgd", "beta1": 0.9}, "sgd has no option 'beta1'. It takes momentum, nesterov, weight_decay"),
        ({"name": "adam", "lr": 0.1}, "adam has no option 'lr'. It takes beta1, beta2"),
    ],
)
def test_an_unknown_name_or_option_is_an_error(given, text):
    before = dict(given) if isinstance(given, dict) else given
    with pytest.raises(InputError, match=rf"^optimizer: {text}"):
        get_optimizer(given)
    assert given == before


def test_the_defaults_are_those_of_the_documentation():
    assert SGD().config() == {"name": "sgd", "momentum": 0.0, "nesterov": False, "weight_decay": 0.0}
    assert RMSprop().config() == {
        "name": "rmsprop", "rho": 0.99, "eps": 1e-8, "eps_placement": "outside", "centered": False, "momentum": 0.0,
        "weight_decay": 0.0,
    }  # fmt: skip
    common = {"beta1": 0.9, "beta2": 0.999, "eps": 1e-8, "amsgrad": False, "bias_correction": True}
    assert Adam().config() == {"name": "adam", **common, "weight_decay": 0.0}
    assert AdamW().config() == {"name": "adamw", **common, "weight_decay": 0.01}


def test_every_rule_has_a_contract_a_class_and_a_kernel():
    text = (folder() / "rules.h").read_text("utf-8")
    rows = re.findall(r"X\((\w+), \w+, (\d+)\)", text[text.index("#define BNENGINE_OPTIMIZERS(X)") :])
    assert {name: int(count) for name, count in rows} == {name: optional(rule) for name, rule in RULES.items()}
    assert RULE_CONTRACTS.keys() == FORMULAS.keys() == {cls.op.name for cls in OPTIMIZERS.values()} == RULES.keys()
    for rule in RULES.values():
        on = [slot.on is not None for slot in rule.slots.values()]
        assert on == sorted(on), f"{rule.name}: the slots that a variant may lack come last"
