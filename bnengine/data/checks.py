"""Validate data-set arrays (dtype, shape, finiteness), in chunks: a mapped file is never loaded whole."""

from collections.abc import Callable, Iterator

import numpy as np

from .._typing import Array
from ..errors import DataError

CHUNK_ELEMENTS = 1 << 20
"""Elements that are checked together: 8 MiB in float64, whatever the size of the file."""

_INPUT_KINDS = "biuf"
_KIND_NAMES = {"O": "Python objects", "c": "complex numbers", "M": "dates", "m": "time spans", "V": "records"}


def chunks(rows: int, width: int) -> Iterator[slice]:
    """Yield slices of `rows` rows of `width` elements, each of about CHUNK_ELEMENTS elements, at least one row."""
    step = max(1, CHUNK_ELEMENTS // max(1, width))
    for start in range(0, rows, step):
        yield slice(start, min(start + step, rows))


def width_of(array: Array) -> int:
    """Count the elements in one row of an array."""
    return int(np.prod(array.shape[1:], dtype=np.int64))


def as_numpy(value: Array, name: str, what: str) -> Array:
    """Return `value` as a NumPy array, without a copy if it is one; a memory-mapped file stays mapped.

    Raises:
        DataError: a masked array with masked values, or something NumPy cannot read (an array on a GPU, ragged lists).
    """
    if isinstance(value, np.ma.MaskedArray) and np.ma.is_masked(value):
        raise DataError(f"{name}: {what} has masked values. Fill them in or leave those rows out.")
    if isinstance(value, np.memmap):
        return value
    try:
        return np.asarray(value)
    except (TypeError, ValueError, RuntimeError) as reason:
        raise DataError(
            f"{name}: {what}, of type {type(value).__name__}, cannot be read by NumPy ({reason}). "
            f"Data sets are in main memory: pass a NumPy array."
        ) from reason


def check_inputs(x: Array, name: str) -> None:
    """Check inputs: real numbers, (samples, features) or (samples, height, width, ...), at least one of each.

    Raises:
        DataError: another dtype, fewer than two axes, or an empty array.
    """
    if x.dtype.kind not in _INPUT_KINDS:
        kind = _KIND_NAMES.get(x.dtype.kind, "text")
        raise DataError(f"{name}: x must have real numbers, integers or bools, got {x.dtype} ({kind}).")
    if x.ndim < 2:
        raise DataError(
            f"{name}: x must have an axis of samples and an axis of features, got shape {x.shape}. "
            f"For one feature per sample, pass x.reshape(-1, 1)."
        )
    if x.shape[0] == 0 or width_of(x) == 0:
        raise DataError(f"{name}: x must have at least one sample and one feature, got shape {x.shape}.")


def text_labels(y: Array, name: str) -> Array:
    """Return text targets (bytes in UTF-8, Python strings, StringDType) as NumPy's fixed-width strings.

    Raises:
        DataError: an object array that holds anything but strings, or bytes that are not UTF-8.
    """
    if y.dtype.kind == "T":
        y = y.astype(object)
    if y.dtype.kind == "O":
        for row, value in enumerate(y.ravel()):
            if not isinstance(value, str):
                raise DataError(
                    f"{name}: y has dtype object and row {row} holds {value!r}, of type {type(value).__name__}. "
                    f"Labels are strings, integers or bools, targets real numbers."
                )
        return y.astype(np.str_)
    if y.dtype.kind == "S":
        for row, value in enumerate(y.ravel()):
            try:
                value.decode("utf-8")
            except UnicodeDecodeError as reason:
                raise DataError(
                    f"{name}: the label of row {row}, {bytes(value)!r}, is not UTF-8 text ({reason}). Decode it."
                ) from reason
        return np.char.decode(y, "utf-8")
    return y


def check_targets(y: Array, rows: int, name: str) -> None:
    """Check targets: labels (strings, integers, bools) or real numbers, one row for each sample.

    Raises:
        DataError: another dtype, another number of rows, or no target in a row.
    """
    if y.dtype.kind not in _INPUT_KINDS + "U":
        kind = _KIND_NAMES.get(y.dtype.kind, str(y.dtype))
        raise DataError(f"{name}: y must have strings, integers, bools or real numbers, got {y.dtype} ({kind}).")
    if y.ndim == 0 or y.ndim > 2 or width_of(y) == 0:
        raise DataError(f"{name}: y must be (samples,) or (samples, targets), got shape {y.shape}.")
    if y.shape[0] != rows:
        raise DataError(f"{name}: x has {rows} rows and y has {y.shape[0]}. Every row of x needs its row of y.")


def row_and_feature(what: str) -> Callable[[tuple[int, ...]], str]:
    """Return a function that names an element of an array: "x, row 4, feature 2", "x, row 4, feature (1, 3)"."""

    def place(index: tuple[int, ...]) -> str:
        row, *rest = index
        if not rest:
            return f"{what}, row {row}"
        return f"{what}, row {row}, feature {rest[0] if len(rest) == 1 else tuple(rest)}"

    return place


def check_finite(array: Array, name: str, place: Callable[[tuple[int, ...]], str]) -> None:
    """Check that no value is NaN or infinite, in one pass of chunks: a mapped file is never loaded whole.

    Raises:
        DataError: the first value that is not finite, with its place.
    """
    if array.dtype.kind != "f":
        return
    for part in chunks(array.shape[0], width_of(array)):
        finite = np.isfinite(array[part])
        if finite.all():
            continue
        first = np.argwhere(~np.asarray(finite))[0]
        index = (part.start + int(first[0]), *(int(i) for i in first[1:]))
        raise DataError(
            f"{name}: {place(index)} must be a finite number, got {float(array[index])}. "
            f"Fill it in or leave the row out."
        )
