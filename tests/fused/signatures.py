"""CuPy 14.2's signatures: a call of the simulated device that would not fit them is a TypeError."""

import inspect
import json
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

LISTED = json.loads(Path(__file__).with_name("cupy_14_2_signatures.json").read_text(encoding="utf-8"))
TYPES = {"str": str, "tuple": tuple, "bool": bool}
KINDS = inspect._ParameterKind


@cache
def _places(name: str, count: int, keywords: tuple[str, ...]) -> tuple[tuple[str, Any], ...]:
    """(parameter, where its value is: an index or a keyword, several in a tuple or dict), of a call of this form."""
    parameters = [
        inspect.Parameter(p, KINDS[kind], default=None if default else inspect.Parameter.empty)
        for p, kind, default, _ in LISTED["signatures"][name]
    ]
    found = inspect.Signature(parameters).bind(*range(count), **{key: key for key in keywords})
    return tuple(found.arguments.items())


def bound(name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> SimpleNamespace:
    """`arguments` as CuPy's `name` takes them; a TypeError if it would not, also for one of another type."""
    arguments: dict[str, Any] = {}
    for p, place in _places(name, len(args), tuple(kwargs)):
        if isinstance(place, tuple):
            arguments[p] = tuple(args[i] for i in place)
        elif isinstance(place, dict):
            arguments[p] = {key: kwargs[key] for key in place}
        else:
            arguments[p] = args[place] if isinstance(place, int) else kwargs[place]
    for p, _, default, declared in LISTED["signatures"][name]:
        value = arguments.get(p)
        if p in arguments and declared in TYPES and not isinstance(value, TYPES[declared]):
            raise TypeError(f"cupy.{name}: {p} is {value!r}; it must be a {declared}")
        if value is None and not default and declared:
            raise TypeError(f"cupy.{name}: {p} is None")
    return SimpleNamespace(arguments=arguments)
