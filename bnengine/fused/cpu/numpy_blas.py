"""The BLAS that NumPy multiplies with, beside ours: an OpenBLAS hands its jobs to the threads that run the kernels.

Its own threads stay awake for a while behind each product, ours behind each step; a program that takes turns between
the two would have them fight over the cores. So while our threads run, NumPy's OpenBLAS gets a function that runs its
jobs on them (openblas_set_threads_callback_function), and null behind `threads.release()`. Where they are busy, or
fewer than the jobs, its own threads do them as ever. `BNENGINE_NUMPY_BLAS=apart` leaves it alone.
"""

import ctypes
import importlib
import os
import re
from typing import Any, NamedTuple

import numpy as np

from ...errors import InputError

VARIABLE = "BNENGINE_NUMPY_BLAS"
SHARED, APART = "shared", "apart"
FROM = (0, 3, 28)  # the first release of OpenBLAS whose callback is as kernels/cpu/blas.h has it
PTHREADS = 1  # of openblas_get_parallel


class Functions(ctypes.Structure):
    """bnengine_blas_functions of kernels/cpu/blas.h."""

    _fields_ = [(n, ctypes.c_void_p) for n in ("set_callback", "begin", "end", "threads")] + [("room", ctypes.c_int)]


class Blas(NamedTuple):
    """NumPy's BLAS: its name, and what it is called by; `why` it keeps to its own threads, "" if it need not."""

    name: str
    why: str
    functions: Functions | None = None


def share(library: Any) -> int:
    """Let the kernels' threads run the jobs of NumPy's BLAS, if it is one that can; the outcome."""
    functions = found().functions if _wanted() == SHARED else None
    return 0 if functions is None else int(library.bnengine_blas(ctypes.byref(functions)))


def described(threads: int) -> str:
    """What NumPy multiplies with, and on whose threads beside so many of the kernels'; 0 where there are none."""
    blas = found()
    why = f"{VARIABLE} says so" if _wanted() == APART else blas.why
    if not why and blas.functions is not None:
        own = ctypes.c_int.from_address(blas.functions.threads).value
        if threads < 2:
            why = "the kernels have one" if threads else "there are no native kernels"
        elif own > threads:
            why = f"it has {own}, the kernels {threads}"
        elif own + threads > blas.functions.room:
            why = f"it was built for {blas.functions.room} in all"
    return f"{blas.name}, on its own threads: {why}" if why else f"{blas.name}, on the kernels' threads"


def found() -> Blas:
    """NumPy's BLAS, by what can be found in the library that NumPy was linked to."""
    linked = ctypes.CDLL(importlib.import_module("numpy._core._multiarray_umath").__file__)
    config = named(linked, "openblas_get_config")
    if config is None:
        return Blas(_built_with(), "it is no OpenBLAS")
    config.restype = ctypes.c_char_p
    told = config().decode()
    name = " ".join(told.split()[:2])
    release, room = re.search(r"(\d+)\.(\d+)\.(\d+)", told), re.search(r"MAX_THREADS=(\d+)", told)
    parallel, setter = (named(linked, f"openblas_{what}") for what in ("get_parallel", "set_threads_callback_function"))
    if parallel is None or parallel() != PTHREADS:
        return Blas(name, "it was not built for POSIX threads")
    if release is None or tuple(map(int, release.groups())) < FROM or setter is None:
        return Blas(name, f"only from {'.'.join(map(str, FROM))} on does it let others run its jobs")
    own = [getattr(linked, n, None) for n in ("exec_blas_async", "exec_blas_async_wait", "blas_num_threads")]
    if room is None or None in own:
        return Blas(name, "it does not show how many threads it has room for")
    addresses = [ctypes.cast(function, ctypes.c_void_p).value for function in (setter, *own)]
    return Blas(name, "", Functions(*addresses, int(room[1])))


def named(linked: Any, name: str) -> Any:
    """A function by its name, or by the one it has in NumPy's wheels or with 64-bit integers; None if there is none."""
    return next((f for b in ("scipy_", "") for e in ("64_", "") if (f := getattr(linked, b + name + e, None))), None)


def _built_with() -> str:
    """What NumPy says that it was built with."""
    told: Any = np.show_config(mode="dicts")
    blas = (told or {}).get("Build Dependencies", {}).get("blas", {})
    return f"{blas.get('name', 'a BLAS without a name')} {blas.get('version', '')}".strip()


def _wanted() -> str:
    text = os.environ.get(VARIABLE, "").strip() or SHARED
    if text not in (SHARED, APART):
        raise InputError(f"{VARIABLE}: {text!r} is not {SHARED} or {APART}; unset it for {SHARED}")
    return text
