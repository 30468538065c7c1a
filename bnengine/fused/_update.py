"""One launcher for each rule of `ops.update`, made of the one that each kind of kernels has."""

from collections.abc import Callable
from typing import Any

from ..ops import REGISTRY
from ..ops.update import RULES, Rule
from ..runtime.memory import Outputs
from ..runtime.op import Launcher, Op


def of_rules(version: Callable[[Op[Any]], Callable[[Launcher], Launcher]], update: Launcher) -> None:
    """Register `update(to, rule, ...)` with the op of each rule."""
    for rule in RULES.values():
        version(REGISTRY[rule.name])(_launcher(rule, update))


def _launcher(rule: Rule, update: Launcher) -> Launcher:
    def launch(to: Outputs, *args: Any, **options: Any) -> Any:
        return update(to, rule, *args, **options)

    launch.__module__, launch.__name__, launch.__qualname__ = update.__module__, rule.name, rule.name
    launch.__doc__ = f"One launch of {rule.name} over the flat buffers."
    return launch
