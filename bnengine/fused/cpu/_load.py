"""Loads the library of native kernels and declares its functions, or says why there is none."""

import ctypes
import functools
import os
from pathlib import Path
from typing import Any

from ...errors import BackendError, InputError
from ...runtime import cores

INTERFACE = 6  # kInterface of kernels/cpu/tables.cpp
INSTRUCTIONS = {"v4": "AVX-512 (x86-64-v4)", "v3": "AVX2 (x86-64-v3)", "aarch64": "64-bit ARM (aarch64)"}
SETS = tuple(INSTRUCTIONS)
ISA, LIBRARY = "BNENGINE_ISA", "BNENGINE_CPU_LIBRARY"
FOLDER = Path(__file__).resolve().parent
WHY_NOT = FOLDER / "_unbuilt.txt"  # kernels/CMakeLists.txt writes it, and removes it after a build that succeeds

_OUTCOMES = {1: "it was called from inside a kernel", 2: "there is not enough memory", 3: "an argument is out of range"}


class Group(ctypes.Structure):
    """bnengine_group of kernels/cpu/replay.h."""

    _fields_ = [(name, ctypes.c_int64) for name in ("unit", "blocks", "launches", "waits")]


class Launch(ctypes.Structure):
    """bnengine_launch of kernels/cpu/replay.h."""

    _fields_ = [("kernel", ctypes.c_void_p), *((n, ctypes.c_int64) for n in ("width", "arrays", "integers", "reals"))]


_pointer, _size, _text, _int = ctypes.c_void_p, ctypes.c_int64, ctypes.c_char_p, ctypes.c_int
_SIGNATURES: dict[str, tuple[Any, list[Any]]] = {
    "bnengine_isa_at": (_text, [_int]),
    "bnengine_isa_runs": (_int, [_text]),
    "bnengine_choose_isa": (_int, [_text]),
    "bnengine_isa": (_text, []),
    "bnengine_kernel": (_pointer, [_text]),
    "bnengine_kernel_at": (_text, [_int]),
    "bnengine_set_threads": (_int, [_int]),
    "bnengine_threads": (_int, []),
    "bnengine_release": (_int, []),
    "bnengine_fill_scratch": (_int, [_int]),
    "bnengine_plan": (_pointer, [_pointer, _size, _pointer, _pointer, _pointer, _pointer, _size, _pointer]),
    "bnengine_plan_arrays": (_pointer, [_pointer]),
    "bnengine_run": (_int, [_pointer]),
    "bnengine_run_on": (_int, [_pointer, _size, _pointer, _size, _pointer]),
    "bnengine_run_timed": (_int, [_pointer, _pointer, _pointer]),
    "bnengine_plan_free": (None, [_pointer]),
    "bnengine_launch_now": (_int, [_pointer, _pointer, _pointer, _pointer, _pointer, _size]),
}


def path() -> Path:
    """Where the library is: in the package, or where BNENGINE_CPU_LIBRARY says."""
    return Path(os.environ.get(LIBRARY) or FOLDER / "_kernels.so")


def _cure() -> str:
    """Return how to get the library: build it in a checkout, which has its sources; elsewhere install it."""
    checkout = (FOLDER.parents[2] / "kernels" / "CMakeLists.txt").is_file()
    return "run `make kernels`" if checkout else "install bnengine again"


@functools.cache
def available() -> str | None:
    """Why there are no native kernels here, in a sentence; None if there are.

    Raises InputError where BNENGINE_ISA or BNENGINE_NUM_THREADS has a value that is not possible here.
    """
    opened = _opened()
    return opened if isinstance(opened, str) else None


@functools.cache
def library() -> Any:
    """The library itself; a BackendError where there is none."""
    if reason := available():
        raise BackendError(f"fused.cpu: {reason}")
    return _opened()


@functools.cache
def _opened() -> Any:
    """The library with the instruction set and threads that the environment names, or why there is none."""
    place = path()
    if not place.is_file():
        why = WHY_NOT.read_text(encoding="utf-8").strip() if WHY_NOT.is_file() else ""
        return f"no native kernels were built: {why or f'there is no {place.name} in {place.parent}; {_cure()}'}"
    try:
        opened = ctypes.CDLL(str(place))
        interface = opened.bnengine_interface()
    except (OSError, AttributeError) as error:
        return f"{place} cannot be loaded: {error}; {_cure()}"
    if interface != INTERFACE:
        return f"{place} has interface {interface}, not {INTERFACE}; {_cure()}"
    for name, (result, arguments) in _SIGNATURES.items():
        function = getattr(opened, name)
        function.restype, function.argtypes = result, arguments
    if unfit := _choose(opened):
        return unfit
    done(opened.bnengine_set_threads(cores.default()), cores.VARIABLE)
    return opened


def _choose(opened: Any) -> str:
    """Take the instruction set that BNENGINE_ISA names, or the most capable one; why not, where none runs here."""
    wanted = os.environ.get(ISA, "").strip()
    if wanted and wanted not in SETS:
        raise InputError(f"{ISA}: {wanted!r} is not one of {', '.join(SETS)}; unset it for the most capable one")
    if opened.bnengine_choose_isa(wanted.encode() or None) == 0:
        return ""
    there = [name for name in sets(opened) if opened.bnengine_isa_runs(name.encode())]
    if wanted and there:
        raise InputError(f"{ISA}: this processor does not run {wanted}, but {', '.join(there)}")
    return f"this processor runs none of the instruction sets {', '.join(sets(opened))} that kernels are built for"


def sets(opened: Any) -> list[str]:
    """The instruction sets that a library was built for, the most capable first."""
    return _names(opened.bnengine_isa_at)


def isa() -> str:
    """The instruction set that runs."""
    return str(library().bnengine_isa().decode())


def kernels() -> list[str]:
    """The names of all kernels."""
    return _names(library().bnengine_kernel_at)


def _names(at: Any) -> list[str]:
    names = list[str]()
    while (name := at(len(names))) is not None:
        names.append(name.decode())
    return names


@functools.cache
def kernel(name: str) -> int:
    """The address of a kernel, such as "fill<float>"."""
    address = library().bnengine_kernel(name.encode())
    if not address:
        raise BackendError(f"fused.cpu: there is no kernel {name!r} in {path()}; {_cure()}")
    return int(address)


def done(outcome: int, what: str) -> None:
    """Nothing where a call of the library succeeded, else a BackendError."""
    if outcome:
        raise BackendError(f"{what}: {_OUTCOMES.get(outcome, f'outcome {outcome}')}")
