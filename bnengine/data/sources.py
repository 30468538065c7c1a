"""A source of what a user gives: arrays, an iterable of batches, or a source already."""

from typing import Any

from .batches import ArraySource, Source
from .iterables import IterableSource
from .preprocessing import Preprocessing


def as_source(data: Any, dtype: str, name: str, preprocessing: Preprocessing | None = None) -> Source | None:
    """A Source of what a user gives: one already, (x, y), (x, y, weights), or a callable that returns an iterable of
    batches.
    """
    if data is None or (hasattr(data, "take") and hasattr(data, "rows")):
        return data  # type: ignore[no-any-return]
    if isinstance(data, tuple) and len(data) in (2, 3):
        x, y, weights = data if len(data) == 3 else (*data, None)
        return ArraySource(x, y, weights, preprocessing, dtype=dtype, name=name)
    return IterableSource(data, preprocessing, dtype, name)
