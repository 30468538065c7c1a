"""Kernel files compiled alone, for one instruction set and with any options, from the checkout; a cache keeps them."""

import ctypes
import functools
import hashlib
import os
import platform
import shlex
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tests.cpu.driver import environment
from tests.support import ROOT, missing

KERNELS = ROOT / "kernels" / "cpu"
SETS = {
    "v3": ("-mavx2", "-mfma", "-mbmi", "-mbmi2"),
    "v4": (
        *("-mavx2", "-mfma", "-mbmi", "-mbmi2", "-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl"),
        "-mprefer-vector-width=512",
    ),
    "aarch64": (),
}
NEEDS = {"v3": {"avx2", "fma", "bmi2"}, "v4": {"avx2", "fma", "bmi2", "avx512f", "avx512bw", "avx512dq", "avx512vl"}}
OF_THIS_MACHINE = ("aarch64",) if platform.machine() in ("aarch64", "arm64") else ("v3", "v4")
FLAGS = (
    *("-std=gnu++17", "-O3", "-fno-math-errno", "-fno-trapping-math", "-ffp-contract=off", "-fvisibility=hidden"),
    *("-fno-exceptions", "-fno-rtti", "-fno-threadsafe-statics", "-Wall", "-Wextra", "-Werror", "-Wno-unknown-pragmas"),
    f"-I{KERNELS}",
)


def require_set(isa: str) -> None:
    """Skips the test where the processor does not run an instruction set, or there is no compiler."""
    if isa not in OF_THIS_MACHINE:
        missing(isa, f"this processor is a {platform.machine()}")
    if isa not in NEEDS:
        return
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        missing(isa, "this system does not say what its processor runs")
    has = set(next((line for line in lines if line.startswith("flags")), "").split())
    if lacking := NEEDS[isa] - has:
        missing(isa, f"this processor has no {', '.join(sorted(lacking))}")


def compiled(code: str, isa: str, *options: str) -> Path:
    """What g++ makes of a source that may include kernel files; its name is a digest of all that it depends on."""
    require_set(isa)
    command = ["g++", "-x", "c++", "-", *FLAGS, *SETS[isa], f"-DBNENGINE_ISA={isa}", *options]
    try:
        version = subprocess.run(["g++", "--version"], capture_output=True, text=True, check=True).stdout
    except FileNotFoundError:
        missing("g++", "g++ is not installed")
    texts = [path.read_text(encoding="utf-8") for path in sorted([*KERNELS.iterdir(), KERNELS.parent / "rules.h"])]
    digest = hashlib.sha256("\0".join([version, *command, *texts, code]).encode()).hexdigest()
    base = os.environ.get("XDG_CACHE_HOME")
    folder = Path(base) / "bnengine" if base else Path(tempfile.gettempdir()) / f"bnengine-{os.getuid()}"
    target = folder / "cpu" / digest
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent) as work:
            out = Path(work) / "out"
            done = subprocess.run([*command, "-o", str(out)], input=code, capture_output=True, text=True)
            assert done.returncode == 0, done.stderr
            out.replace(target)
    return target


def run(program: Path, *arguments: str) -> None:
    """Runs a program, by another where BNENGINE_TESTS_RUN_BY says so; what it says is the test's failure."""
    by = shlex.split(os.environ.get("BNENGINE_TESTS_RUN_BY", ""))
    done = subprocess.run([*by, str(program), *arguments], capture_output=True, text=True, env=environment())
    assert done.returncode == 0, done.stdout + done.stderr


class _Arguments(ctypes.Structure):
    _fields_ = (("arrays", ctypes.c_void_p), ("integers", ctypes.c_void_p), ("reals", ctypes.c_void_p))


class _Worker(ctypes.Structure):
    _fields_ = (("scratch", ctypes.c_void_p), ("bytes", ctypes.c_size_t))


EXPORT = """
#include <string.h>
extern "C" __attribute__((visibility("default"))) bnengine::Kernel kernel_of(const char* name) {
  for (const bnengine::Entry* e = bnengine::BNENGINE_ISA::entries(); e->name; ++e)
    if (!strcmp(e->name, name)) return e->kernel;
  return nullptr;
}
"""


class Kernels:
    """The kernels of one file for one instruction set, called block by block; scratch is poisoned before each."""

    def __init__(self, file: str, isa: str, scratch: int = 0) -> None:
        library = ctypes.CDLL(str(compiled(f'#include "{file}"\n{EXPORT}', isa, "-shared", "-fPIC")))
        self._find = library.kernel_of
        self._find.restype, self._find.argtypes = ctypes.c_void_p, [ctypes.c_char_p]
        self._memory, self._bytes = np.zeros(scratch + 128, np.uint8), scratch

    @property
    def scratch(self) -> Any:
        """What the last call left in scratch, as bytes."""
        at = -self._memory.ctypes.data % 64
        return self._memory[at : at + self._bytes]

    def __call__(
        self,
        name: str,
        arrays: Sequence[Any],
        integers: Sequence[int],
        begin: int,
        end: int,
        reals: Sequence[float] = (),
    ) -> None:
        address = self._find(name.encode())
        assert address, f"no kernel {name}"
        self._memory[:] = 255
        at = -self._memory.ctypes.data % 64
        pointers = (ctypes.c_void_p * len(arrays))(*(None if x is None else x.ctypes.data for x in arrays))
        numbers, fractions = (ctypes.c_int64 * len(integers))(*integers), (ctypes.c_double * (len(reals) or 1))(*reals)
        given = _Arguments(*map(ctypes.addressof, (pointers, numbers, fractions)))
        worker = _Worker(self._memory.ctypes.data + at, self._bytes)
        _call(address)(ctypes.byref(given), begin, end, ctypes.byref(worker))
        assert (self._memory[:at] == 255).all()
        assert (self._memory[at + self._bytes :] == 255).all(), f"{name} wrote past its scratch"


@functools.cache
def _call(address: int) -> Callable[..., None]:
    kind = ctypes.CFUNCTYPE(
        None, ctypes.POINTER(_Arguments), ctypes.c_int64, ctypes.c_int64, ctypes.POINTER(_Worker)
    )  # fmt: skip
    return kind(address)
