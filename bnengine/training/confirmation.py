"""Confirm that a step with custom classes may be replayed: two recordings of it must have the same launches."""

from collections.abc import Iterable
from dataclasses import fields, is_dataclass
from typing import Any

import numpy as np

from ..layers.base import LAYERS
from ..losses import LOSSES
from ..optim.optimizers import OPTIMIZERS
from ..runtime.plan import Launch, Plan, name_of, view_of

# Taken when bnengine is imported, so before a user's program can register a class.
BUILT_IN = frozenset([*LAYERS.values(), *LOSSES.values(), *OPTIMIZERS.values()])


def custom_classes(parts: Iterable[Any]) -> list[str]:
    """Return the names of the classes of `parts` that bnengine does not define."""
    return [cls.__name__ for cls in dict.fromkeys(map(type, parts)) if cls not in BUILT_IN]


def difference(first: Plan, second: Plan) -> str:
    """Describe how the launches of two recordings of one step differ; "" if they are the same."""
    for a, b in zip(first.launches, second.launches, strict=False):
        if not _same(a.kernel, b.kernel):
            before, after = name_of(a.kernel), name_of(b.kernel)
            return f"{before} with another launch geometry" if before == after else f"{before}, then {after}"
        if not _same(a.scalars, b.scalars):
            return f"{name_of(a.kernel)} with {_scalars(a)}, then with {_scalars(b)}"
        if not _same(a, b):
            return f"{name_of(a.kernel)} on other memory"
    counts = len(first.launches), len(second.launches)
    return f"{counts[0]} launches, then {counts[1]}" if counts[0] != counts[1] else ""


def _scalars(launch: Launch) -> str:
    return ", ".join(map(str, launch.scalars))


def _same(a: Any, b: Any) -> bool:
    """Whether two parts of launches are equal; arrays are equal if they are the same memory."""
    if a is b:
        return True
    if type(a) is not type(b):
        return False
    if isinstance(a, (tuple, list)):
        return len(a) == len(b) and all(map(_same, a, b))
    if is_dataclass(a):
        return all(_same(getattr(a, f.name), getattr(b, f.name)) for f in fields(a))
    if _is_array(a):
        return bool(a.dtype == b.dtype and view_of(a) == view_of(b))
    return bool(a == b) or bool(a != a and b != b)  # NaN equals NaN here


def _is_array(x: Any) -> bool:
    interfaces = ("__cuda_array_interface__", "__array_interface__")
    return not isinstance(x, np.generic) and any(hasattr(x, name) for name in interfaces)
