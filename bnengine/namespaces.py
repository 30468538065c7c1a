"""The one look-up from arrays to their array-API namespace."""

from typing import Any

from array_api_compat import array_namespace

from ._typing import Array
from .errors import InputError


def namespace(*arrays: Array) -> Any:
    """The array-API namespace of `arrays`; arrays of two libraries, or of none, are an error that names them."""
    try:
        return array_namespace(*(a for a in arrays if a is not None))
    except TypeError as error:
        kinds = ", ".join(sorted({f"{type(a).__module__}.{type(a).__name__}" for a in arrays}))
        raise InputError(
            f"namespace: no single array library for {kinds}; bring all arrays to one with Backend.asarray"
        ) from error
