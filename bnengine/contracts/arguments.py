"""Checks of arrays that the contracts of several ops share."""

from collections.abc import Mapping

from .._typing import Array
from ..arrays.dtypes import arithmetic_name
from ..arrays.namespaces import dtype_name
from ..errors import InputError


def check_floating(owner: str, *, wide: Mapping[str, Array | None] | None = None, **arrays: Array | None) -> None:
    """Refuse integers, whose mean or gradient would be rounded to an integer without a word, and mixed dtypes.

    `wide`: parameters and weights, which are in the dtype that the others are computed in: float32 beside 16 bits.
    """
    given = {name: a for name, a in arrays.items() if a is not None}
    first, like = next(iter(given.items()))
    for name, a in (given | {n: a for n, a in (wide or {}).items() if a is not None}).items():
        if not dtype_name(a.dtype).startswith(("float", "bfloat")):
            raise InputError(f"{owner}: {name} is {a.dtype}; give float32 or float64")
        needed = dtype_name(like.dtype) if name in given else arithmetic_name(like.dtype)
        if dtype_name(a.dtype) != needed:
            cure = "bring both to one dtype" if needed == dtype_name(like.dtype) else f"{name} must be {needed}"
            raise InputError(f"{owner}: {name} is {a.dtype} and {first} is {like.dtype}; {cure}")


def check_alike(owner: str, **arrays: Array | None) -> None:
    """Refuse arrays that are not all of one shape: broadcasting would hide a mistake."""
    given = {name: tuple(a.shape) for name, a in arrays.items() if a is not None}
    if len(set(given.values())) > 1:
        shapes = ", ".join(f"{name} {shape}" for name, shape in given.items())
        raise InputError(f"{owner}: {shapes} must be of one shape")
