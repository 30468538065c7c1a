"""Optimizers: their moves against recursions written out here, their rows, slots, options and errors."""

import json
import math
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


@pytest.mark.parametrize("label", CASES)
def test_six_steps_are_those_of_the_rule(rng, label):
    optimizer, clip = CASES[label], (None, 0.05)[[*CASES].index(label) % 2]
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


SHARE, POSITIVE, NUMBER = "0 and below 1", "above 0", "of at least 0"
REFUSED: list[tuple[type[Optimizer], str, list[object], str]] = [
    (SGD, "momentum", [1.0, -0.1], SHARE), (SGD, "weight_decay", [-0.1, math.inf, math.nan], NUMBER),
    (RMSprop, "rho", [1.0, -0.5], SHARE), (RMSprop, "momentum", [1.5], SHARE),
    (RMSprop, "eps", [0.0, math.inf], POSITIVE),
    (RMSprop, "eps_placement", ["under"], "'outside' or 'inside'"), (RMSprop, "weight_decay", [-1.0], NUMBER),
    (Adam, "beta1", [1.0], SHARE), (Adam, "beta2", [1.0, -0.1], SHARE), (Adam, "eps", [-1e-8], POSITIVE),
    (Adam, "weight_decay", [-1.0], NUMBER), (AdamW, "beta1", [1.0], SHARE), (AdamW, "eps", [0.0], POSITIVE),
    (AdamW, "weight_decay", [-1.0], NUMBER),
]  # fmt: skip


@pytest.mark.parametrize(("cls", "option", "values", "text"), REFUSED)
def test_an_unusable_option_is_an_error_that_echoes_it(cls, option, values, text):
    for value in values:
        with pytest.raises(InputError, match=rf"^{cls.__name__}: {option} must .*{text}, got {re.escape(repr(value))}"):
            cls(**{option: value})


def test_the_edges_of_the_options():
    with pytest.raises(InputError, match=r"^SGD: nesterov needs a momentum above 0, got 0\.0\. Give momentum=0\.9"):
        SGD(nesterov=True)
    assert Adam(beta1=0.0, beta2=0.0, eps=1e-300).eps == 1e-300
    assert RMSprop(rho=0.0, momentum=0.0, weight_decay=1e300).weight_decay == 1e300


def test_a_configuration_gives_the_same_optimizer():
    for optimizer in CASES.values():
        again = get_optimizer(json.loads(json.dumps(optimizer.config())))
        assert (again, type(again)) == (optimizer, type(optimizer))
        assert get_optimizer(optimizer) is optimizer


def test_names():
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
