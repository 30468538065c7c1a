"""IDX files, the format of MNIST and Fashion-MNIST: a folder of them, plain or compressed by gzip."""

import gzip
import io
import math
import re
import struct
import zlib
from pathlib import Path

import numpy as np

from .._typing import Array
from ..errors import DataError
from .dataset import Dataset, joined

_TYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
_NAME = re.compile(r"(?P<prefix>.*?)(?P<part>train|t10k|test)-(?P<kind>images|labels)[-.]idx\d-ubyte(?P<gz>\.gz)?")
_PIECE = 1 << 20
Stream = io.BufferedReader | gzip.GzipFile


def read_idx(path: Path) -> Array:
    """Read the array in an IDX file, in the machine's byte order; gzip is recognized by the content, not the name.

    The file is a magic number (0, 0, type, axes), one big-endian 32-bit length for each axis, and the values.

    Raises:
        DataError: not an IDX file, or one whose size differs from that in its header.
    """
    try:
        with path.open("rb") as file:
            compressed = file.read(2) == b"\x1f\x8b"
        with gzip.open(path, "rb") if compressed else path.open("rb") as stream:
            return _read(stream, path)
    except (EOFError, zlib.error, gzip.BadGzipFile) as reason:
        raise DataError(f"{path}: the compressed file is truncated or damaged ({reason}). Fetch it again.") from reason
    except OSError as reason:
        raise DataError(f"{path}: cannot be read ({reason}). Check the path.") from reason


def _read(stream: Stream, path: Path) -> Array:
    magic = _exactly(stream, 4, path, 0, "the magic number")
    if magic[:2] != b"\0\0" or magic[2] not in _TYPES or magic[3] == 0:
        raise DataError(
            f"{path}: byte 0: an IDX file must start with 0x0000, a type (0x08, 0x09, 0x0b to 0x0e) and the "
            f"number of axes, got 0x{magic.hex()}."
        )
    axes = magic[3]
    shape = struct.unpack(f">{axes}I", _exactly(stream, 4 * axes, path, 4, f"the {axes} lengths of the axes"))
    dtype = np.dtype(_TYPES[magic[2]])
    start, size = 4 + 4 * axes, math.prod(shape) * dtype.itemsize
    content = _up_to(stream, size + 1)
    if len(content) < size:
        row_bytes = size // shape[0]
        raise DataError(
            f"{path}: truncated at byte {start + len(content)}, in row {len(content) // row_bytes}: the header "
            f"promises shape {shape} {dtype.newbyteorder('=')}, {size} bytes after byte {start}. Fetch the file again."
        )
    if len(content) > size:
        raise DataError(
            f"{path}: byte {start + size}: there are more bytes than the header's shape {shape} takes. "
            f"The header or the file is wrong: fetch it again."
        )
    return np.frombuffer(content, dtype=dtype).reshape(shape).astype(dtype.newbyteorder("="))


def _up_to(stream: Stream, size: int) -> bytearray:
    """Read at most `size` bytes, in pieces, so that a wrong size in a header allocates no memory."""
    content = bytearray()
    while len(content) < size and (piece := stream.read(min(_PIECE, size - len(content)))):
        content += piece
    return content


def _exactly(stream: Stream, size: int, path: Path, start: int, what: str) -> bytes:
    content = bytes(_up_to(stream, size))
    if len(content) < size:
        raise DataError(f"{path}: truncated at byte {start + len(content)}: the file ends in {what}.")
    return content


def is_idx_name(name: str) -> bool:
    """Whether a file has a name like MNIST's files: [prefix]train|t10k|test-images|labels-idxN-ubyte[.gz]."""
    return _NAME.fullmatch(name) is not None


def load_idx(path: Path, *, need_targets: bool = True) -> Dataset:
    """Load a folder of IDX files with MNIST's names, or one part of it by its images file.

    If a folder has a training part (train-*) and a test part (t10k-* or test-*), the rows of the test part follow those
    of the training part and become the `validation` rows. Of a plain file and its .gz the plain one is read.

    Args:
        path: the folder, or an images file.
        need_targets: whether missing labels are an error; else `y` is None.

    Raises:
        DataError: a file is missing or damaged, or counts differ; the message names the file and the byte.
    """
    if path.is_dir():
        parts = _parts(path)
    else:
        name = _NAME.fullmatch(path.name)
        assert name is not None
        if name["kind"] != "images":
            raise DataError(f"{path}: this is a file of labels. Name the images file, or the folder of both.")
        labels = {k: v for k, v in _parts(path.parent, name["prefix"])[name["part"]].items() if k == "labels"}
        parts = {name["part"]: {"images": path, **labels}}
    loaded = {part: _load_part(path, part, files, need_targets) for part, files in parts.items()}
    train, tests = loaded.get("train"), [data for part, data in loaded.items() if part != "train"]
    if len(tests) > 1:
        raise DataError(f"{path}: there are both t10k-* and test-* files. Keep one of them.")
    if train is not None and tests:
        return joined(train, tests[0], str(path))
    return train if train is not None else tests[0]


def _parts(folder: Path, prefix: str | None = None) -> dict[str, dict[str, Path]]:
    """Return {"train" | "t10k" | "test": {"images" | "labels": file}} of one prefix."""
    by_prefix: dict[str, dict[str, dict[str, Path]]] = {}
    for path in sorted(folder.iterdir()):
        # Sorted, a plain file comes before its .gz, and the first is kept.
        if name := _NAME.fullmatch(path.name):
            by_prefix.setdefault(name["prefix"], {}).setdefault(name["part"], {}).setdefault(name["kind"], path)
    if prefix is not None:
        return by_prefix[prefix]
    if not by_prefix:
        raise DataError(
            f"{folder}: no IDX files here. They are called train-images-idx3-ubyte and train-labels-idx1-ubyte, "
            f"or t10k-..., plain or .gz."
        )
    if len(by_prefix) > 1:
        raise DataError(
            f"{folder}: files of several data sets ({', '.join(sorted(by_prefix))}). Give each its own folder."
        )
    return next(iter(by_prefix.values()))


def _load_part(path: Path, part: str, files: dict[str, Path], need_targets: bool) -> Dataset:
    if "images" not in files:
        raise DataError(f"{path}: {files['labels'].name} has no images file {part}-images-idx3-ubyte next to it.")
    x = read_idx(files["images"])
    if x.ndim < 2:
        raise DataError(
            f"{files['images']}: byte 3: images must have at least two axes, (samples, features), got {x.ndim}."
        )
    if "labels" not in files:
        if need_targets:
            raise DataError(f"{path}: {files['images'].name} has no labels file {part}-labels-idx1-ubyte next to it.")
        return Dataset(x=x, name=str(files["images"]))
    y = read_idx(files["labels"])
    if y.ndim != 1:
        raise DataError(f"{files['labels']}: byte 3: labels must have one axis, (samples,), got {y.ndim}.")
    if len(x) != len(y):
        raise DataError(
            f"{files['labels']}: {len(y)} labels for the {len(x)} images of {files['images'].name}. "
            f"The two files do not belong together."
        )
    return Dataset(x=x, y=y.astype(np.int64) if y.dtype.kind in "iu" else y, name=str(path))
