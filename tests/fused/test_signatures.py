"""A launcher takes what its op takes, and means the same where nothing is given."""

import importlib
import inspect

import pytest

from bnengine.ops import REGISTRY

LAUNCHERS = [
    (name, module.replace("cuda", folder))
    for folder in ("cuda", "cpu")
    for name, op in REGISTRY.items()
    for module in [op.fused_names[0].partition(":")[0]]
]


@pytest.mark.parametrize(("name", "module"), LAUNCHERS)
def test_a_launcher_has_the_parameters_and_the_defaults_of_its_reference(name, module):
    launcher = getattr(importlib.import_module(module), name)
    first, *found = inspect.signature(launcher).parameters.values()
    expected = list(inspect.signature(REGISTRY[name].reference).parameters.values())
    assert first.name == "to"
    assert [(p.name, p.kind, p.default) for p in found] == [(p.name, p.kind, p.default) for p in expected]
