"""NumPy's files: .npz archives, and pairs of .npy files that are memory-mapped. Nothing here unpickles."""

import math
import re
import struct
import tokenize
import zipfile
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.lib import format

from .._typing import Array
from ..errors import DataError
from .dataset import Dataset, joined

_DAMAGE = (
    OSError,
    MemoryError,
    ValueError,
    EOFError,
    KeyError,
    TypeError,
    SyntaxError,
    OverflowError,
    NotImplementedError,
    RuntimeError,
    struct.error,
    tokenize.TokenError,
    zipfile.BadZipFile,
    zlib.error,
)
_X_WORD = re.compile(r"(?<![A-Za-z0-9])x(?![A-Za-z0-9])")


def load_npz(path: Path, *, need_targets: bool = True) -> Dataset:
    """Load an .npz archive with x and y; or x_train, y_train, x_test, y_test: test rows become `validation` rows.

    Args:
        path: the file.
        need_targets: whether an archive without y is an error; if not, `y` is None.

    Raises:
        DataError: not an archive, a damaged one, one without x or y, or arrays of Python objects.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            names = [name.removesuffix(".npy") for name in archive.namelist()]
    except _DAMAGE as reason:
        raise DataError(f"{path}: not an .npz archive, or a damaged one ({reason}). Save it again.") from reason
    if "x" in names:
        return _part(path, names, "x", "y", need_targets)
    if "x_train" not in names:
        raise DataError(
            f"{path}: the archive holds {', '.join(names) or 'nothing'}. It needs arrays called x and y "
            f"(or x_train, y_train, x_test, y_test)."
        )
    train = _part(path, names, "x_train", "y_train", need_targets)
    if "x_test" not in names:
        return train
    return joined(train, _part(path, names, "x_test", "y_test", need_targets), str(path))


def _part(path: Path, names: list[str], x: str, y: str, need_targets: bool) -> Dataset:
    if y not in names and need_targets:
        raise DataError(f"{path}: the archive holds {', '.join(names)}. It needs an array {y} with the targets.")
    _check_rows(path, [name for name in (x, y) if name in names])
    targets = _member(path, y) if y in names else None
    return Dataset(x=_member(path, x), y=targets, name=str(path))


def _member(path: Path, name: str) -> Array:
    """Return an array of an archive, whose header and checksum are compared with the bytes before and after."""
    try:
        with zipfile.ZipFile(path) as archive, archive.open(f"{name}.npy") as file:
            shape, dtype = _described(file, archive.getinfo(f"{name}.npy").file_size)
            file.seek(0)
            array = format.read_array(file, allow_pickle=False)
            if file.read(1) or (array.shape, array.dtype) != (shape, dtype):  # reading to the end checks the checksum
                raise ValueError("it has more bytes than its header says")
            return array
    except _DAMAGE as reason:
        raise DataError(f"{path}: array {name}: {_cause_in_archive(path, name, reason)}") from reason


def _described(file: IO[bytes], size: int) -> tuple[tuple[int, ...], np.dtype[Any]]:
    """Return shape and dtype of a .npy file of `size` bytes, which must hold just as many as these need."""
    version = format.read_magic(file)
    shape, _, dtype = (format.read_array_header_1_0 if version == (1, 0) else format.read_array_header_2_0)(file)
    if not dtype.hasobject and file.tell() + math.prod(shape) * dtype.itemsize != size:
        raise ValueError("its header and its size do not fit")
    return shape, dtype


def _cause_in_archive(path: Path, name: str, reason: Exception) -> str:
    try:
        with zipfile.ZipFile(path) as archive, archive.open(f"{name}.npy") as file:
            return _cause(file, archive.getinfo(f"{name}.npy").file_size, reason)
    except _DAMAGE:
        return f"truncated or damaged ({reason or type(reason).__name__}). Save it again."


def _check_rows(path: Path, names: Iterable[str]) -> None:
    """Compare the numbers of rows in the headers, before an array is read: it may be large."""
    rows: dict[str, int] = {}
    try:
        with zipfile.ZipFile(path) as archive:
            for name in names:
                with archive.open(f"{name}.npy") as file:
                    shape, _ = _described(file, archive.getinfo(f"{name}.npy").file_size)
                rows[name] = shape[0] if shape else 0
    except _DAMAGE:
        return  # reading the arrays says why
    if len(set(rows.values())) > 1:
        found = ", ".join(f"{name} {n}" for name, n in rows.items())
        raise DataError(
            f"{path}: x and y must have the same number of rows, got {found}. Save one target for each row."
        )


def load_npy(path: Path, *, need_targets: bool = True) -> Dataset:
    """Load a pair of .npy files, memory-mapped: rows are read when they are used.

    The file of targets has the name of the inputs with the word x replaced by y: train_x.npy and train_y.npy.

    Args:
        path: the file of the inputs.
        need_targets: whether a missing file of targets is an error; if not, `y` is None.

    Raises:
        DataError: a file that is missing, truncated, no .npy file, or one of Python objects.
    """
    targets = path.with_name(_X_WORD.sub("y", path.stem) + path.suffix)
    if targets.name == path.name:
        if need_targets:
            raise DataError(f"{path}: call the file x.npy (or ..._x.npy), so that y.npy with the targets is found.")
        return Dataset(x=_mapped(path), name=str(path))
    if not targets.exists():
        if need_targets:
            raise DataError(f"{path}: there is no {targets.name} with the targets next to it.")
        return Dataset(x=_mapped(path), name=str(path))
    return Dataset(x=_mapped(path), y=_mapped(targets), name=str(path))


def _mapped(path: Path) -> Array:
    try:
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except OSError as reason:
        raise DataError(f"{path}: cannot be read ({reason}). Check the path.") from reason
    except _DAMAGE as reason:
        with path.open("rb") as file:
            raise DataError(f"{path}: {_cause(file, path.stat().st_size, reason)}") from reason


def _cause(file: IO[bytes], size: int, reason: Exception) -> str:
    """Explain from the header of a .npy file of `size` bytes why NumPy cannot read it."""
    if isinstance(reason, MemoryError):
        return f"it does not fit into memory ({reason}). Save x.npy and y.npy, which are memory-mapped."
    try:
        version = format.read_magic(file)
    except ValueError:
        return "not a .npy file. Save it again with numpy.save."
    damaged = f"truncated or damaged ({reason or type(reason).__name__}). Save it again."
    try:
        shape, _, dtype = (format.read_array_header_1_0 if version == (1, 0) else format.read_array_header_2_0)(file)
    except _DAMAGE:
        return damaged
    if dtype.hasobject:
        return "it holds Python objects, which are not read: they could run code. Save numbers or fixed-width strings."
    if file.tell() + math.prod(shape) * dtype.itemsize > size:
        return "truncated: the file has fewer bytes than its header says. Save it again."
    return damaged
