"""What launchers share whatever runs their kernels: arrays as rows of channels, and where an output goes."""

from collections.abc import Callable, Mapping, Sequence
from math import prod

import numpy as np

from .._typing import Array, DType
from ..errors import InputError
from ..ops.gather import Gathered
from ..runtime.memory import Outputs

DOUBLE = 8  # bytes


def extent(x: Array) -> tuple[int, int]:
    """(rows, channels): all axes but the last are rows."""
    return prod(x.shape[:-1]), int(x.shape[-1])


def copied(x: Array, out: Array) -> None:
    """A launch of the array library's own: x in the dtype and layout of `out`."""
    out[...] = x


def has_rows(x: Array) -> bool:
    """Whether x has rows of float64 that are contiguous each and whole numbers apart: columns of a larger buffer."""
    rows, columns = x.strides
    apart = rows % DOUBLE == 0 and rows >= DOUBLE * x.shape[1]
    return bool(x.dtype == np.float64 and columns == DOUBLE and apart)


def row_stride(x: Array) -> int:
    """The numbers from row to row where `has_rows`."""
    return int(x.strides[0]) // DOUBLE


def destination(
    to: Outputs, field: str, shape: Sequence[int], dtype: DType, like: Array, takes: Callable[[Array], bool],
    kernels: str, *, there: bool,
) -> Array:  # fmt: skip
    """The array that an output is written to; one that was given must have its shape and dtype, and be taken.

    `takes`: whether kernels can write to an array as it lies in memory, `kernels`, who writes to what, for the message.
    Where the call does not have the output, it is not `there`: None, and a destination of it is an error.
    """
    if not there:
        absent(to, field)
        return None
    shape, dtype = tuple(map(int, shape)), np.dtype(dtype)
    array = to.array(field, shape, dtype, like)
    if not to.given(field):
        return array
    if tuple(array.shape) != shape:
        shapes = f"{tuple(array.shape)}, the output is {shape}"
        raise InputError(f"the destination of {field!r} is {shapes}; they must be alike")
    if array.dtype != dtype or not takes(array):
        layout = f"{array.dtype} with strides {tuple(array.strides)}"
        raise InputError(f"the destination of {field!r} is {layout}; {kernels} {dtype} arrays")
    return array


def gathered(
    to: Outputs, output: Callable[..., Array], given: Mapping[str, Array | None], divisors: Array, rows: int,
    like: Array, dtype: DType,
) -> Gathered:  # fmt: skip
    """Where the rows of a micro-batch go: those of x in `dtype`, the others in their own."""
    if given["weights"] is None:
        absent(to, "weights")
    kinds = {field: None if a is None else a.dtype for field, a in given.items()} | {"x": dtype}
    taken = {
        field: None if a is None else output(to, field, (rows, *a.shape[1:]), kinds[field], a)
        for field, a in given.items()
    }
    return Gathered(**taken, divisor=output(to, "divisor", (1,), divisors.dtype, like))


def absent(to: Outputs, *fields: str) -> None:
    """Refuse destinations of outputs that this call does not have."""
    for field in fields:
        if to.given(field):
            raise InputError(f"this call has no output {field!r} that could go into a destination")
