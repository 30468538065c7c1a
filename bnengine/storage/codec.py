"""Values as JSON: two codecs, since JSON has neither tuples nor infinity nor NaN.

`encode` and `decode` lose nothing (a checkpoint reads back what it wrote); `plain` gives what other programs can read.
"""

import json
from collections.abc import Mapping
from math import isfinite
from typing import Any


def as_read(value: Any) -> Any:
    """`value` as it comes back from JSON, with lists for tuples: what a saved configuration is compared with."""
    if isinstance(value, dict):
        return {k: as_read(v) for k, v in value.items()}
    return [as_read(v) for v in value] if isinstance(value, (tuple, list)) else value


def encode(value: Any) -> Any:
    """`value` with lists for tuples and {"float": "inf"} for a float that JSON lacks."""
    if isinstance(value, dict):
        return {k: encode(v) for k, v in value.items()}
    if isinstance(value, (tuple, list)):
        return [encode(v) for v in value]
    return {"float": str(value)} if isinstance(value, float) and not isfinite(value) else value


def decode(value: Any) -> Any:
    """The value that `encode` took, with lists for tuples."""
    if isinstance(value, dict):
        return float(value["float"]) if value.keys() == {"float"} else {k: decode(v) for k, v in value.items()}
    return [decode(v) for v in value] if isinstance(value, list) else value


def plain(value: Any) -> Any:
    """`value` in objects and lists, with names that are strings; None for a float that is not finite."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    return None if isinstance(value, float) and not isfinite(value) else value


def dumps(value: Any, *, indent: int | None = None, ascii_only: bool = True) -> str:
    """The JSON text of `plain(value)`."""
    return json.dumps(plain(value), allow_nan=False, indent=indent, ensure_ascii=ascii_only)
