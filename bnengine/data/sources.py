"""Convert what a user passes as data into a Source."""

from typing import Any

from .batches import ArraySource, Source
from .iterables import IterableSource
from .preprocessing import Preprocessing


def as_source(data: Any, dtype: str, name: str, preprocessing: Preprocessing | None = None) -> Source | None:
    """Convert data into a Source.

    Args:
        data: a Source, which is returned; (x, y) or (x, y, weights); an iterable of such batches, or a callable that
            returns one; None.
        dtype: of the network.
        name: what messages call the data.
        preprocessing: turns raw rows into the network's numbers; None if the data are ready.

    Returns:
        The source; None if `data` is None.
    """
    if data is None or (hasattr(data, "take") and hasattr(data, "rows")):
        return data  # type: ignore[no-any-return]
    if isinstance(data, tuple) and len(data) in (2, 3):
        x, y, weights = data if len(data) == 3 else (*data, None)
        return ArraySource(x, y, weights, preprocessing, dtype=dtype, name=name)
    return IterableSource(data, preprocessing, dtype, name)
