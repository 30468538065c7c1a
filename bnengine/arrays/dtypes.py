"""Dtypes of storage and of arithmetic: numbers of 16 bits are storage, their arithmetic is float32.

An op on float16 or bfloat16 arrays widens them, computes in float32 and rounds what it stores, once. Parameters such as
gamma and a bias, their gradients, sample weights and losses always have the dtype of the arithmetic.
"""

from .._typing import Array, DType
from .namespaces import dtype_name, namespace

NARROW = ("float16", "bfloat16")
UNITS = {"float16": 2.0**-11, "bfloat16": 2.0**-8, "float32": 2.0**-24, "float64": 2.0**-53}
LEAST = {"float16": 2.0**-24, "bfloat16": 2.0**-133, "float32": 2.0**-149, "float64": 2.0**-1074}
NORMAL = {"float16": 2.0**-14, "bfloat16": 2.0**-126, "float32": 2.0**-126, "float64": 2.0**-1022}


_KNOWN: dict[tuple[type, DType], bool] = {}  # the type keeps dtypes of different libraries apart


def is_narrow(dtype: DType) -> bool:
    """Return whether it is a dtype of 16 bits, of any library or by name."""
    key = type(dtype), dtype
    if key not in _KNOWN:
        _KNOWN[key] = dtype_name(dtype) in NARROW
    return _KNOWN[key]


def arithmetic_name(dtype: DType) -> str:
    """Return the name of the dtype that arrays of `dtype` are computed in."""
    return "float32" if is_narrow(dtype) else dtype_name(dtype)


def arithmetic(x: Array) -> DType:
    """Return the dtype, of x's library, that x is computed in."""
    return namespace(x).float32 if is_narrow(x.dtype) else x.dtype


def widened(x: Array) -> Array:
    """Return x in the dtype of its arithmetic: x itself unless it has 16 bits."""
    return namespace(x).astype(x, namespace(x).float32) if is_narrow(x.dtype) else x


def stored(y: Array, like: Array) -> Array:
    """Return y rounded to the dtype of `like` if that has 16 bits; else y itself."""
    return namespace(y).astype(y, like.dtype) if is_narrow(like.dtype) else y


def unit_stored(dtype: DType) -> float:
    """Return what storing in `dtype` adds to the arithmetic's unit of rounding: 0 if both are the same dtype."""
    return UNITS[dtype_name(dtype)] if is_narrow(dtype) else 0.0
