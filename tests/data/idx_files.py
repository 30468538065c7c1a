"""IDX files, written from the description of the format and independent of the reader."""

import gzip
import struct
from pathlib import Path

from bnengine._typing import Array

IDX_CODES = {"uint8": 0x08, "int8": 0x09, "int16": 0x0B, "int32": 0x0C, "float32": 0x0D, "float64": 0x0E}


def idx_bytes(array: Array) -> bytes:
    """An array in the IDX format, written from its description: magic number, lengths, big-endian values."""
    header = struct.pack(f">4B{array.ndim}I", 0, 0, IDX_CODES[str(array.dtype)], array.ndim, *array.shape)
    return header + array.astype(array.dtype.newbyteorder(">")).tobytes()


def write_idx(path: Path, array: Array) -> Path:
    content = idx_bytes(array)
    path.write_bytes(gzip.compress(content, mtime=0) if path.suffix == ".gz" else content)
    return path
