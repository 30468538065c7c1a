"""The functions of kernels/cpu over arrays, and their errors. `python -m tests.cpu.functions` goes over all floats."""

import ctypes
import functools
import json
import re
from pathlib import Path
from typing import Any

import numpy as np

from tests.cpu.build import compiled

SOURCE, RESULTS = Path(__file__).with_name("functions.cpp"), Path(__file__).with_name("functions.json")
NAMES = ("exponential", "logarithm", "log_of_one_plus", "hyperbolic_tangent", "error_function")
FLOATS = 1 << 32


class Found(ctypes.Structure):
    """What was found: the largest error in units in the last place, where, how many ends are wrong, a sum of bits."""

    _fields_ = (
        ("worst", ctypes.c_double),
        ("at", ctypes.c_double),
        ("wrong", ctypes.c_longlong),
        ("bits", ctypes.c_ulonglong),
    )


@functools.cache
def _library(isa: str) -> ctypes.CDLL:
    return ctypes.CDLL(str(compiled(SOURCE.read_text(encoding="utf-8"), isa, "-shared", "-fPIC", "-lm")))


class Functions:
    """The functions as one instruction set has them."""

    def __init__(self, isa: str) -> None:
        self._library = _library(isa)

    def __call__(self, name: str, x: Any) -> Any:
        y = np.empty_like(x)
        kind = "float" if x.dtype == np.float32 else "double"
        getattr(self._library, f"{name}_{kind}")(*map(_address, (x, y)), ctypes.c_longlong(x.size))
        return y

    def measured(self, name: str, x: Any, y: Any) -> Found:
        """How far y is from the function of x by libm in the next wider type."""
        found = Found()
        measure = self._library.measure_float if x.dtype == np.float32 else self._library.measure_double
        measure(NAMES.index(name), _address(x), _address(y), ctypes.c_longlong(x.size), ctypes.byref(found))
        return found

    @staticmethod
    def code_of(isa: str) -> dict[str, str]:
        """The assembly of each function over arrays, by its name."""
        path = compiled(SOURCE.read_text(encoding="utf-8"), isa, "-S")
        parts = re.split(r"^(\w+):$", path.read_text(encoding="utf-8"), flags=re.MULTILINE)
        return {name: body.split("\t.size")[0] for name, body in zip(parts[1::2], parts[2::2], strict=True)}


def _address(x: Any) -> ctypes.c_void_p:
    return ctypes.c_void_p(x.ctypes.data)


def sweep(isa: str, name: str, *, measured: bool) -> dict[str, Any]:
    """What a function does over all floats; without `measured` only the sum of the results' bits."""
    found, step = Found(), FLOATS // 64
    for begin in range(0, FLOATS, step):
        bounds = ctypes.c_longlong(begin), ctypes.c_longlong(begin + step)
        _library(isa).sweep(NAMES.index(name), *bounds, int(measured), ctypes.byref(found))
    return {
        "worst": round(found.worst, 4),
        "at": float(found.at).hex(),
        "wrong": found.wrong,
        "bits": f"{found.bits:016x}",
    }


def recorded() -> dict[str, dict[str, Any]]:
    """What was found over all floats."""
    return dict(json.loads(RESULTS.read_text(encoding="utf-8")))


def main() -> None:
    """Go over all floats and write what is found."""
    rows = {}
    for name in NAMES:
        rows[name] = sweep("v4", name, measured=True)
        print(name, rows[name], flush=True)
    RESULTS.write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
