"""Lookups for every array library: the namespace of an array, the name of a dtype."""

from typing import Any

import numpy as np
from array_api_compat import array_namespace

from .._typing import Array, DType
from ..errors import InputError


def namespace(*arrays: Array) -> Any:
    """Return the array-API namespace of `arrays`; InputError for arrays of two libraries, or of none."""
    try:
        return array_namespace(*(a for a in arrays if a is not None))
    except TypeError as error:
        kinds = ", ".join(sorted({f"{type(a).__module__}.{type(a).__name__}" for a in arrays}))
        raise InputError(
            f"namespace: arrays must be of one library, got {kinds}. Convert all arrays to one with Backend.asarray."
        ) from error


def dtype_name(dtype: DType) -> str:
    """ "float32" for "float32", numpy.float32, numpy.dtype("float32"), torch.float32 and the like."""
    if isinstance(dtype, str):
        return dtype
    if isinstance(dtype, type | np.dtype):
        return str(np.dtype(dtype).name)
    return str(dtype).rsplit(".", 1)[-1]
