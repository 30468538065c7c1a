"""A training's values as JSON can hold them, and back."""

from math import isfinite
from typing import Any


def listed(value: Any) -> Any:
    """`value` with lists for tuples, as it comes back from JSON: what a saved configuration is compared with."""
    if isinstance(value, dict):
        return {k: listed(v) for k, v in value.items()}
    return [listed(v) for v in value] if isinstance(value, (tuple, list)) else value


def written(value: Any) -> Any:
    """`value` with inf and NaN, which JSON lacks and a skipped step leaves in a record, as {"float": "inf"}."""
    if isinstance(value, dict):
        return {k: written(v) for k, v in value.items()}
    if isinstance(value, (tuple, list)):
        return [written(v) for v in value]
    return {"float": str(value)} if isinstance(value, float) and not isfinite(value) else value


def restored(value: Any) -> Any:
    """What `written` was given."""
    if isinstance(value, dict):
        return float(value["float"]) if value.keys() == {"float"} else {k: restored(v) for k, v in value.items()}
    return [restored(v) for v in value] if isinstance(value, list) else value
