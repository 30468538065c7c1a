"""JSON: the one place where values become JSON text and come back.

JSON has neither tuples nor infinity nor NaN, so there are three kinds of value:

- `encode` and `decode` keep every value: what a checkpoint holds of callbacks and history.
- `checked` refuses what JSON cannot hold: the metadata of a checkpoint.
- `plain` replaces what JSON cannot hold by None: what other programs read.
"""

import json
from collections.abc import Mapping
from math import isfinite
from typing import Any

from ..errors import CheckpointError


def as_lists(value: Any) -> Any:
    """Return `value` with lists for tuples, as JSON gives it back, to compare with a saved configuration."""
    if isinstance(value, dict):
        return {k: as_lists(v) for k, v in value.items()}
    return [as_lists(v) for v in value] if isinstance(value, (tuple, list)) else value


def encode(value: Any) -> Any:
    """Return `value` with lists for tuples, and {"float": "inf"} for a float that JSON lacks."""
    if isinstance(value, dict):
        return {k: encode(v) for k, v in value.items()}
    if isinstance(value, (tuple, list)):
        return [encode(v) for v in value]
    return {"float": str(value)} if isinstance(value, float) and not isfinite(value) else value


def decode(value: Any) -> Any:
    """Return the value that `encode` took, with lists for tuples."""
    if isinstance(value, dict):
        return float(value["float"]) if value.keys() == {"float"} else {k: decode(v) for k, v in value.items()}
    return [decode(v) for v in value] if isinstance(value, list) else value


def plain(value: Any) -> Any:
    """Return `value` in objects and lists with string keys, and None for a float that is not finite."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    return None if isinstance(value, float) and not isfinite(value) else value


def checked(value: object, place: str, where: str) -> Any:
    """Return `value` in JSON's own types, so that reading it back gives an equal value.

    Args:
        value: None, bool, int, finite float, str, and lists, tuples (they become lists) and mappings of these.
        place: what errors call the value.
        where: what errors begin with.

    Raises:
        CheckpointError: JSON cannot hold the value; the message names its place.
    """
    try:
        return _checked(value, place, where)
    except RecursionError:
        raise CheckpointError(f"{where}: {place} is nested too deeply, or contains itself. Flatten it.") from None


def _checked(value: object, place: str, where: str) -> Any:
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return str(value)
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float) and isfinite(value):
        return float(value)
    if isinstance(value, float):
        raise CheckpointError(f"{where}: {place} is {value!r}, which JSON cannot hold. Leave it out or store None.")
    if isinstance(value, list | tuple):
        return [_checked(item, f"{place}[{index}]", where) for index, item in enumerate(value)]
    if isinstance(value, Mapping):
        for key in value:
            if not isinstance(key, str):
                raise CheckpointError(f"{where}: {place} has the key {key!r}, and JSON's keys are strings. Use str().")
        return {str(key): _checked(item, f"{place}[{key!r}]", where) for key, item in value.items()}
    raise CheckpointError(
        f"{where}: {place} is {value!r} of type {type(value).__name__}. Convert it to int, float, str, list or dict, "
        "or store it as a tensor."
    )


def dumps(value: Any, *, indent: int | None = None, ascii_only: bool = True) -> str:
    """Return the JSON text of `plain(value)`."""
    return json.dumps(plain(value), allow_nan=False, indent=indent, ensure_ascii=ascii_only)


def compact(value: Any, *, sort_keys: bool = False) -> str:
    """Return JSON text without spaces; ValueError for what JSON cannot hold."""
    return json.dumps(value, sort_keys=sort_keys, separators=(",", ":"), allow_nan=False)


def parse_object(text: str | bytes) -> dict[str, Any]:
    """Return the JSON object in `text`; ValueError if it holds none."""
    try:
        value = json.loads(text)
    except RecursionError as error:
        raise ValueError(str(error)) from error
    if not isinstance(value, dict):
        raise ValueError("it is no JSON object")
    return value
