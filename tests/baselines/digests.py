"""Digests of arrays and values, the tensors of a checkpoint, and a fingerprint of what NumPy computes here."""

import hashlib
import json
from base64 import urlsafe_b64encode
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

BYTES = 6  # of a digest are kept
Digests = dict[str, str]
# Safetensors' words for dtypes.
DTYPES = {"BOOL": "?", "I32": "<i4", "I64": "<i8", "U8": "|u1", "F16": "<f2", "F32": "<f4", "F64": "<f8"}


def digest(array: Any) -> str:
    """The SHA-256 of an array's dtype, shape and bytes; every NaN counts as the same NaN."""
    array = np.ascontiguousarray(array)
    if array.dtype.kind not in "biuSU":
        array = np.where(np.isnan(array), np.asarray(np.nan, array.dtype), array)
    head = f"{array.dtype.name} {array.shape} ".encode()
    return _short(head + array.tobytes())


def of_value(value: Any) -> str:
    """The SHA-256 of a JSON value; floats count to the last bit."""
    return _short(json.dumps(value, sort_keys=True).encode())


def _short(data: bytes) -> str:
    """The first bytes of the SHA-256, in base64."""
    return urlsafe_b64encode(hashlib.sha256(data).digest()[:BYTES]).decode()


def tensors(path: Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """The arrays and the metadata of a checkpoint, read without the package that wrote it."""
    data = path.read_bytes()
    start = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:start])
    document = json.loads(header.pop("__metadata__")["bnengine"])
    arrays = {}
    for name, entry in header.items():
        a, b = entry["data_offsets"]
        flat = np.frombuffer(data[start + a : start + b], DTYPES[entry["dtype"]])
        arrays[name] = flat.reshape(entry["shape"])
    return arrays, document["metadata"]


def of_arrays(arrays: Mapping[str, Any], prefix: str = "") -> Digests:
    """A digest for each array that is not None."""
    return {prefix + name: digest(array) for name, array in arrays.items() if array is not None}


def numpy_fingerprint() -> str:
    """A digest of what NumPy itself computes here: products, functions and sums, which differ between its builds.

    Where two machines have the same, digests of references can be compared; else references are compared within bounds.
    """
    found = list[str]()
    for dtype in (np.float32, np.float64):
        x = np.linspace(-9, 9, 37 * 53).reshape(37, 53).astype(dtype)
        found += [digest(x @ x.T), digest(x.T @ x[:, :19]), digest(x[:5] @ x[:3].T), digest(x[0] @ x.T)]
        for function in (np.exp, np.tanh, np.cos):
            found.append(digest(function(x)))
        for function in (np.log, np.log1p, np.sqrt):
            found.append(digest(function(np.abs(x) + 1)))
        found += [digest(x.sum(axis=0)), digest(x.sum(axis=1)), digest(x.mean()), digest(np.abs(x) ** 1.7)]
    return of_value(found)
