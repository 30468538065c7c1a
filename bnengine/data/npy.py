"""NumPy's own files: .npz archives, and pairs of .npy files that stay on the disk. Nothing here unpickles."""

import re
import struct
import tokenize
import zipfile
import zlib
from pathlib import Path

import numpy as np

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
    """An .npz archive with x and y; or x_train, y_train, x_test, y_test, whose test rows become `validation` rows.

    Args:
        path: the file.
        need_targets: whether an archive without y is an error; else `y` is None.

    Raises:
        DataError: not an archive, a damaged one, one without x or y, or arrays of Python objects.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            names = [name.removesuffix(".npy") for name in archive.namelist()]
    except _DAMAGE as reason:
        raise DataError(f"{path}: not an .npz archive, or a damaged one ({reason})") from reason
    if "x" in names:
        return _part(path, names, "x", "y", need_targets)
    if "x_train" not in names:
        raise DataError(
            f"{path}: the archive holds {', '.join(names) or 'nothing'}; it needs arrays called x and y "
            f"(or x_train, y_train, x_test, y_test)"
        )
    train = _part(path, names, "x_train", "y_train", need_targets)
    if "x_test" not in names:
        return train
    return joined(train, _part(path, names, "x_test", "y_test", need_targets), str(path))


def _part(path: Path, names: list[str], x: str, y: str, need_targets: bool) -> Dataset:
    if y not in names and need_targets:
        raise DataError(f"{path}: the archive holds {', '.join(names)}; there is no array {y} with the targets")
    targets = _member(path, y) if y in names else None
    return Dataset(x=_member(path, x), y=targets, name=str(path))


def _member(path: Path, name: str) -> Array:
    try:
        with np.load(path, allow_pickle=False) as archive:
            return archive[name]
    except _DAMAGE as reason:
        raise DataError(f"{path}: array {name}: {_cause(reason)}") from reason


def load_npy(path: Path, *, need_targets: bool = True) -> Dataset:
    """A pair of .npy files, x.npy with y.npy beside it, both memory-mapped: rows are read when they are needed.

    The file of targets is called as the inputs' with the word x replaced by y: train_x.npy and train_y.npy.

    Args:
        path: the file of the inputs.
        need_targets: whether a missing file of targets is an error; else `y` is None.

    Raises:
        DataError: a file that is missing, truncated, no .npy file, or one of Python objects.
    """
    targets = path.with_name(_X_WORD.sub("y", path.stem) + path.suffix)
    if targets.name == path.name:
        if need_targets:
            raise DataError(f"{path}: call the file x.npy (or ..._x.npy), so that y.npy with the targets is found")
        return Dataset(x=_mapped(path), name=str(path))
    if not targets.exists():
        if need_targets:
            raise DataError(f"{path}: there is no {targets.name} with the targets beside it")
        return Dataset(x=_mapped(path), name=str(path))
    return Dataset(x=_mapped(path), y=_mapped(targets), name=str(path))


def _mapped(path: Path) -> Array:
    try:
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except _DAMAGE as reason:
        raise DataError(f"{path}: {_cause(reason)}") from reason


def _cause(reason: Exception) -> str:
    """What NumPy's message means to somebody who has a file."""
    text = str(reason)
    if "Object arrays" in text or "Python objects" in text:
        return "it holds Python objects, which are not read (they could run code); save numbers or fixed-width strings"
    if "mmap length" in text:
        return "truncated: its header promises more bytes than the file has"
    if isinstance(reason, MemoryError):
        return f"it does not fit into memory ({text}); save x.npy and y.npy, which stay on the disk"
    if "pickled" in text or "magic string" in text:
        return "not a .npy file"
    return f"truncated or damaged ({text or type(reason).__name__})"
