"""CuPy 14.2's signatures: a call of the simulated device that would not fit them is a TypeError."""

import inspect
import json
from pathlib import Path
from typing import Any

LISTED = json.loads(Path(__file__).with_name("cupy_14_2_signatures.json").read_text(encoding="utf-8"))
TYPES = {"str": str, "tuple": tuple, "bool": bool}
KINDS = inspect._ParameterKind


def bound(name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> inspect.BoundArguments:
    """The arguments as CuPy's `name` takes them; a TypeError if it would not, also for one of another type."""
    parameters = [
        inspect.Parameter(p, KINDS[kind], default=None if default else inspect.Parameter.empty)
        for p, kind, default, _ in LISTED["signatures"][name]
    ]
    found = inspect.Signature(parameters).bind(*args, **kwargs)
    for p, _, default, declared in LISTED["signatures"][name]:
        value = found.arguments.get(p)
        if p in found.arguments and declared in TYPES and not isinstance(value, TYPES[declared]):
            raise TypeError(f"cupy.{name}: {p} is {value!r}; it must be a {declared}")
        if value is None and not default and declared:
            raise TypeError(f"cupy.{name}: {p} is None")
    return found
