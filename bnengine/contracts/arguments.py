"""Checks of arrays that the contracts of several ops share."""

from collections.abc import Mapping

from .._typing import Array
from ..arrays.dtypes import arithmetic_name
from ..arrays.namespaces import dtype_name
from ..errors import InputError


def check_floating(owner: str, *, wide: Mapping[str, Array | None] | None = None, **arrays: Array | None) -> None:
    """Raise InputError for integers, whose mean would be rounded silently, and for mixed dtypes.

    Args:
        owner: the op that errors begin with.
        wide: parameters and weights, in the dtype of the arithmetic: float32 where the others have 16 bits.
        arrays: the others, of one dtype; None for an absent one.
    """
    present = {name: a for name, a in arrays.items() if a is not None}
    first, like = next(iter(present.items()))
    for name, a in (present | {n: a for n, a in (wide or {}).items() if a is not None}).items():
        if not dtype_name(a.dtype).startswith(("float", "bfloat")):
            raise InputError(f"{owner}: {name} must be float32 or float64, got {a.dtype}.")
        needed = dtype_name(like.dtype) if name in present else arithmetic_name(like.dtype)
        if dtype_name(a.dtype) != needed:
            cure = "Bring both to one dtype" if needed == dtype_name(like.dtype) else f"{name} must be {needed}"
            raise InputError(f"{owner}: {name} is {a.dtype} and {first} is {like.dtype}. {cure}.")


def check_alike(owner: str, **arrays: Array | None) -> None:
    """Raise InputError unless all arrays have one shape: broadcasting would hide a mistake."""
    shapes_of = {name: tuple(a.shape) for name, a in arrays.items() if a is not None}
    if len(set(shapes_of.values())) > 1:
        shapes = ", ".join(f"{name} {shape}" for name, shape in shapes_of.items())
        raise InputError(f"{owner}: arrays must have one shape, got {shapes}.")
