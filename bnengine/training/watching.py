"""Classes from outside bnengine: does a step of theirs launch the same each time? A replay takes that for granted."""

from collections.abc import Iterable
from dataclasses import fields, is_dataclass
from typing import Any

import numpy as np

from ..runtime.plan import Launch, Plan, name_of, view_of

OWN = __name__.partition(".")[0]


def from_outside(parts: Iterable[Any]) -> list[str]:
    """The names of the classes among those of `parts` that bnengine does not define itself."""
    kinds = dict.fromkeys(map(type, parts))
    return [kind.__name__ for kind in kinds if kind.__module__.partition(".")[0] != OWN]


def difference(first: Plan, second: Plan) -> str:
    """In what the launches of two recordings of one step differ, in a few words; "" if in nothing."""
    for a, b in zip(first.launches, second.launches, strict=False):
        if not _same(a.kernel, b.kernel):
            one, other = name_of(a.kernel), name_of(b.kernel)
            return f"{one} was launched in another way" if one == other else f"{one}, then {other}"
        if not _same(a.scalars, b.scalars):
            return f"{name_of(a.kernel)} with {_told(a)}, then with {_told(b)}"
        if not _same(a, b):
            return f"{name_of(a.kernel)} on other memory"
    counts = len(first.launches), len(second.launches)
    return f"{counts[0]} launches, then {counts[1]}" if counts[0] != counts[1] else ""


def _told(launch: Launch) -> str:
    return ", ".join(map(str, launch.scalars))


def _same(a: Any, b: Any) -> bool:
    """Whether two parts of launches are one: arrays by their memory, whatever numbers are there."""
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
    return bool(a == b) or bool(a != a and b != b)  # NaN is the same as NaN here


def _is_array(x: Any) -> bool:
    interfaces = ("__cuda_array_interface__", "__array_interface__")
    return not isinstance(x, np.generic) and any(hasattr(x, name) for name in interfaces)
