"""Checkpoints: named arrays and JSON in one safetensors file, written atomically and checked byte for byte.

The file is plain safetensors, readable by that package: the header's length in 8 bytes, a JSON header, the arrays.
Its `__metadata__` has one key, `bnengine`, that holds sorted JSON without spaces, so equal state gives equal bytes::

    {"file_sha256": ..., "format": "bnengine", "metadata": ..., "sha256": {tensor name: ...}, "version": 2}

`file_sha256` is the SHA-256 of the whole file with its own 64 digits set to "0". It is first, hence at a fixed offset
in every version: so damage is distinguished from a later version. `sha256` then names the damaged array.

This module writes the bytes itself. The safetensors package needs a second copy of the whole file in memory, saves
strided arrays wrongly without an error, and aborts the process or hangs instead of raising MemoryError.

| version | what changed |
|---|---|
| 0 | the first one |
| 1 | `file_sha256`; the metadata under the key `metadata`, no longer next to the format's keys |
| 2 | the words of `bnengine.renamed` with `since=2` |
"""

import errno
import hashlib
import math
import os
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from ..errors import CheckpointError
from ..renamed import replace_old_words
from .atomic import NotFlushedError, replace_file
from .codec import checked, compact, parse_object

FORMAT_VERSION = 2

Array = np.ndarray[Any, np.dtype[Any]]

_DTYPES = {
    "BOOL": "|b1", "I8": "|i1", "I16": "<i2", "I32": "<i4", "I64": "<i8", "U8": "|u1", "U16": "<u2", "U32": "<u4",
    "U64": "<u8", "F16": "<f2", "F32": "<f4", "F64": "<f8",
}  # fmt: skip
_CODES = {np.dtype(dtype): code for code, dtype in _DTYPES.items()}
_PREFIX = rb'{"__metadata__":{"bnengine":"{\"file_sha256\":\"'  # how the header begins since version 1
_DIGEST_AT = 8 + len(_PREFIX)
_DIGEST_LENGTH = 64
_LONGEST_HEADER = 100_000_000  # bytes; the limit of the safetensors package
_ALIGNMENT = 64
_RESTORE = "Restore an earlier copy."
_NAME = "Pass the path of a checkpoint of bnengine."


class Contents(NamedTuple):
    """The content of a checkpoint: `tensors` by name, and `metadata`, plain JSON values."""

    tensors: dict[str, Array]
    metadata: dict[str, Any]


class _DamagedError(ValueError):
    """The bytes are not a checkpoint; the message is the reason, without the path."""


# --- Writing ---


def write(path: str | os.PathLike[str], tensors: Mapping[str, Array], metadata: Mapping[str, Any]) -> None:
    """Replace the file at `path` by a checkpoint, atomically. Equal state gives equal bytes.

    Args:
        path: the file.
        tensors: NumPy arrays of any shape and memory order, of bool, integer or floating dtypes up to 64 bits.
        metadata: None, bool, int, finite float, str, and lists, tuples (read back as lists) and mappings with str keys
            of these.

    Raises:
        CheckpointError: an array or a value cannot be stored, the disk is full, or the path cannot be written. The old
            file is intact.
    """
    where = f"checkpoint.write({os.fspath(path)!r})"
    try:
        replace_file(path, _encode(tensors, metadata, where))  # encoded before the disk is touched
    except NotFlushedError as error:
        raise CheckpointError(
            f"{where}: the new checkpoint is in place, but its folder could not be flushed ({error.strerror}), so a "
            "power failure now may bring the old one back. Check the disk and write again."
        ) from error
    except (OSError, ValueError, MemoryError) as error:
        if isinstance(error, CheckpointError):
            raise
        intact = "The old checkpoint is intact." if os.path.isfile(path) else "Nothing was written."
        raise CheckpointError(f"{where}: {_reason(error)} {intact}") from error


def _encode(tensors: Mapping[str, Array], metadata: Mapping[str, Any], where: str) -> list[bytes | memoryview]:
    """Return the file's bytes, in pieces; copies only arrays that are strided or big-endian."""
    arrays = {name: _little_endian(name, value, where) for name, value in tensors.items()}
    # Wide dtypes first, as in safetensors: every array then starts at a multiple of its item size.
    order = sorted(arrays, key=lambda name: (-arrays[name].itemsize, name))
    document = {
        "file_sha256": "0" * _DIGEST_LENGTH,
        "format": "bnengine",
        "metadata": checked(metadata, "metadata", where),
        "sha256": {name: hashlib.sha256(_bytes(arrays[name])).hexdigest() for name in order},
        "version": FORMAT_VERSION,
    }
    header: dict[str, Any] = {"__metadata__": {"bnengine": _json(document, where)}}
    start = 0
    for name in order:
        stop = start + arrays[name].nbytes
        header[name] = {"dtype": _CODES[arrays[name].dtype], "shape": arrays[name].shape, "data_offsets": [start, stop]}
        start = stop
    text = compact(header).encode("ascii")
    text += b" " * (-(8 + len(text)) % _ALIGNMENT)
    if len(text) > _LONGEST_HEADER:
        raise CheckpointError(
            f"{where}: names and metadata take {len(text):,} bytes, and a safetensors header holds "
            f"{_LONGEST_HEADER:,}. Store long lists as tensors."
        )
    head = len(text).to_bytes(8, "little") + text
    digest = hashlib.sha256(head)
    for name in order:
        digest.update(_bytes(arrays[name]))
    head = head[:_DIGEST_AT] + digest.hexdigest().encode("ascii") + head[_DIGEST_AT + _DIGEST_LENGTH :]
    return [head, *(_bytes(arrays[name]) for name in order)]


def _little_endian(name: object, value: object, where: str) -> Array:
    """Return the array in C order and little-endian, as the file holds it."""
    if not isinstance(name, str) or name == "__metadata__":
        raise CheckpointError(f"{where}: a tensor's name must be a str other than '__metadata__', got {name!r}.")
    try:
        name.encode("utf-8")
    except UnicodeEncodeError:
        raise CheckpointError(
            f"{where}: the tensor name {name!r} holds half a surrogate pair. Use valid Unicode."
        ) from None
    if not isinstance(value, np.ndarray) or isinstance(value, np.ma.MaskedArray):
        raise CheckpointError(
            f"{where}: tensor {name!r} must be an array, got {type(value).__name__}. Pass np.asarray of it."
        )
    dtype = value.dtype.newbyteorder("<")
    if dtype not in _CODES:
        known = ", ".join(np.dtype(d).name for d in _DTYPES.values())
        raise CheckpointError(
            f"{where}: tensor {name!r} must have a dtype among {known}, got {value.dtype}. Convert it."
        )
    return np.asarray(value, dtype=dtype, order="C")


def _bytes(array: Array) -> memoryview:
    return array.reshape(-1).view(np.uint8).data


def _json(document: object, where: str) -> str:
    try:
        return compact(document, sort_keys=True)
    except ValueError as error:  # an integer of thousands of digits
        raise CheckpointError(f"{where}: metadata cannot be stored as JSON: {error}.") from error


# --- Reading ---


def read(path: str | os.PathLike[str]) -> Contents:
    """Read the checkpoint at `path`, check every byte, and migrate an older format.

    The arrays are new, writable and of the machine's byte order.

    Raises:
        CheckpointError: the file is missing, empty, truncated, damaged in any byte, of a foreign or a later format, or
            larger than the free memory.
    """
    where = f"checkpoint.read({os.fspath(path)!r})"
    try:
        if os.path.exists(path) and not (os.path.isfile(path) or os.path.isdir(path)):
            raise CheckpointError(f"{where}: this is not a regular file. Pass the path of a checkpoint.")
        with open(path, "rb") as file:
            data = file.read()
        return _decode(data)
    except _DamagedError as error:
        raise CheckpointError(f"{where}: {error}") from error
    except FileNotFoundError as error:
        raise CheckpointError(f"{where}: there is no such file. Check the path.") from error
    except MemoryError as error:
        size = os.path.getsize(path)
        raise CheckpointError(
            f"{where}: not enough memory: the file has {size:,} bytes and reading it needs twice that. Free some "
            "memory."
        ) from error
    except (OSError, ValueError) as error:
        if isinstance(error, CheckpointError):
            raise
        raise CheckpointError(f"{where}: {_reason(error)}") from error


def _decode(data: bytes) -> Contents:
    if not data:
        raise _DamagedError(f"the file is empty. {_RESTORE}")
    if data[8:_DIGEST_AT] == _PREFIX:
        _check_file(data)
    header = _header(data)
    document = _document(header)
    version = document.get("version")
    if type(version) is not int:
        raise _DamagedError(f"the file is damaged: it names no format version. {_RESTORE}")
    if version > FORMAT_VERSION:
        raise _DamagedError(
            f"the file has format version {version}, and this bnengine reads up to version {FORMAT_VERSION}. "
            "Update bnengine: pip install --upgrade bnengine."
        )
    if version > 0 and data[8:_DIGEST_AT] != _PREFIX:
        raise _DamagedError(f"the header is damaged: the digest of the file is missing. {_RESTORE}")
    _check_tensors(data, header, document)
    contents = Contents({name: _tensor(data, header, name) for name in header if name != "__metadata__"}, document)
    for old in range(version, FORMAT_VERSION):
        if old not in MIGRATIONS:
            raise _DamagedError(f"the file has format version {old}, which this bnengine cannot read any more.")
        contents = MIGRATIONS[old](contents)
    return Contents(contents.tensors, contents.metadata["metadata"])


def _check_file(data: bytes) -> None:
    """Compare the whole file with its digest; if they differ, name what is damaged."""
    stop = _DIGEST_AT + _DIGEST_LENGTH
    digest = hashlib.sha256(data[:_DIGEST_AT] + b"0" * _DIGEST_LENGTH)
    digest.update(memoryview(data)[stop:])
    if digest.hexdigest().encode("ascii") == data[_DIGEST_AT:stop]:
        return
    header = _header(data)
    _check_tensors(data, header, _document(header))
    raise _DamagedError(f"the header is damaged (the SHA-256 of the file differs). {_RESTORE}")


def _header(data: bytes) -> dict[str, Any]:
    """Return the JSON header; its arrays' offsets are checked, and together they cover the rest of the file."""
    length = int.from_bytes(data[:8], "little")
    if len(data) < 8 or length > _LONGEST_HEADER or data[8:9] not in (b"{", b""):
        raise _DamagedError(f"this is no safetensors file, or its beginning is damaged. {_NAME}")
    if 8 + length > len(data):
        raise _DamagedError(
            f"the file is truncated: {len(data):,} bytes, and its header alone has {8 + length:,}. {_RESTORE}"
        )
    header = _parse(data[8 : 8 + length])
    stop = 0
    places = {name: entry for name, entry in header.items() if name != "__metadata__"}
    for name, entry in sorted(places.items(), key=_offsets):
        if _offsets((name, entry)) != (stop, stop + _size(name, entry)):
            raise _DamagedError(f"the header is damaged: the place of tensor {name!r} is wrong. {_RESTORE}")
        stop += _size(name, entry)
    if 8 + length + stop != len(data):
        kind = "truncated" if len(data) < 8 + length + stop else "damaged"
        raise _DamagedError(
            f"the file is {kind}: {len(data):,} bytes, and its header names {8 + length + stop:,}. {_RESTORE}"
        )
    return header


def _offsets(item: tuple[str, Any]) -> tuple[int, int]:
    name, entry = item
    offsets = entry.get("data_offsets") if isinstance(entry, dict) else None
    if not (isinstance(offsets, list) and len(offsets) == 2 and all(type(n) is int for n in offsets)):
        raise _DamagedError(f"the header is damaged: tensor {name!r} has no place. {_RESTORE}")
    return offsets[0], offsets[1]


def _size(name: str, entry: dict[str, Any]) -> int:
    shape, code = entry.get("shape"), entry.get("dtype")
    if not (isinstance(shape, list) and all(type(n) is int and n >= 0 for n in shape)):
        raise _DamagedError(f"the header is damaged: tensor {name!r} has the shape {shape!r}. {_RESTORE}")
    if not isinstance(code, str) or code not in _DTYPES:
        raise _DamagedError(
            f"tensor {name!r} has dtype {code!r}, which bnengine never writes: a foreign or damaged file. {_NAME}"
        )
    return math.prod(shape) * np.dtype(_DTYPES[code]).itemsize


def _parse(text: str | bytes) -> dict[str, Any]:
    try:
        return parse_object(text)
    except ValueError as error:
        raise _DamagedError(f"the header is damaged: {error}. {_RESTORE}") from error


def _document(header: dict[str, Any]) -> dict[str, Any]:
    metadata = header.get("__metadata__")
    text = metadata.get("bnengine") if isinstance(metadata, dict) else None
    if not isinstance(text, str):
        raise _DamagedError(f"a safetensors file, but not of bnengine (or its header is damaged). {_NAME}")
    return _parse(text)


def _check_tensors(data: bytes, header: dict[str, Any], document: dict[str, Any]) -> None:
    digests = document.get("sha256")
    names = header.keys() - {"__metadata__"}
    if not isinstance(digests, dict) or digests.keys() != names:
        raise _DamagedError(f"the header is damaged: its tensors and their digests do not match. {_RESTORE}")
    damaged = [
        name for name in sorted(names) if hashlib.sha256(_place(data, header, name)).hexdigest() != digests[name]
    ]
    if damaged:
        raise _DamagedError(f"tensor {', '.join(map(repr, damaged))} is damaged (its SHA-256 differs). {_RESTORE}")


def _place(data: bytes, header: dict[str, Any], name: str) -> memoryview:
    base = 8 + int.from_bytes(data[:8], "little")
    start, stop = header[name]["data_offsets"]
    return memoryview(data)[base + start : base + stop]


def _tensor(data: bytes, header: dict[str, Any], name: str) -> Array:
    dtype = np.dtype(_DTYPES[header[name]["dtype"]])
    flat = np.frombuffer(_place(data, header, name), dtype=dtype)
    return flat.astype(dtype.newbyteorder("=")).reshape(header[name]["shape"])


# --- Older formats ---


def _from_version_0(old: Contents) -> Contents:
    """Move the metadata, whose keys were next to the format's, under a key; there was no digest of the file."""
    keys = {"format", "sha256", "version"}
    document = {key: value for key, value in old.metadata.items() if key in keys}
    document["metadata"] = {key: value for key, value in old.metadata.items() if key not in keys}
    document["version"] = 1
    return Contents(old.tensors, document)


def _from_version_1(old: Contents) -> Contents:
    """Replace the words that version 2 renamed."""
    replace_old_words(old.metadata["metadata"], since=2)
    return Contents(old.tensors, {**old.metadata, "version": 2})


# For each old version: a function from its tensors and whole JSON document to those of the next version.
MIGRATIONS: dict[int, Callable[[Contents], Contents]] = {0: _from_version_0, 1: _from_version_1}


# --- Reasons ---

_CURES = {
    errno.ENOENT: "its folder does not exist. Create it first.",
    errno.ENOTDIR: "a part of the path is a file, not a folder. Check the path.",
    errno.EISDIR: "this is a folder. Name a file in it.",
    errno.ENOSPC: "the disk is full. Free some space or name a file on another disk.",
    errno.EFBIG: "the file is larger than the process or the disk allows. Raise ulimit -f or name another disk.",
    errno.EACCES: "permission denied. Change the permissions of file and folder, or name another folder.",
    errno.EPERM: "not permitted. Change the permissions of file and folder, or name another folder.",
    errno.EROFS: "the disk is mounted read-only. Name a file on another disk.",
    errno.ELOOP: "a loop of symbolic links. Name the file itself.",
    getattr(
        errno, "EDQUOT", errno.ENOSPC
    ): "the disk quota is used up. Free some space or name a file on another disk.",
}


def _reason(error: Exception) -> str:
    if isinstance(error, MemoryError):
        return "not enough memory to make a strided array contiguous. Free some memory, or pass contiguous arrays."
    if isinstance(error, OSError):
        return _CURES.get(error.errno or 0, f"{error.strerror or error}. Check the path and the disk.")
    return f"{error}. Check the path."
