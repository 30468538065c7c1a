"""CpuModule: the part of cupy.RawModule that launches kernels, on NumPy arrays, by g++."""

import ctypes
import fcntl
import hashlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

INCLUDE = Path(__file__).resolve().parent / "include"
SCHEDULES = ("forward", "reverse", "shuffled")
FLAGS = (
    *("-x", "c++", "-std=c++17", "-O1", "-fPIC", "-shared", "-w", "-ffp-contract=off"),
    "-U_FORTIFY_SOURCE",  # its longjmp refuses to change stacks
    "-fno-extern-tls-init",
    "-fvisibility=hidden",
    "-fno-gnu-unique",
)
MESSAGE = 512  # bytes


class LaunchError(RuntimeError):
    """A kernel did what a GPU would not survive, or a launch that it would not start."""


class Parameter(NamedTuple):
    """A kernel's parameter: NumPy's letter for the kind of value, its bytes, and whether it is a pointer to such."""

    kind: str
    size: int
    pointer: bool

    def __str__(self) -> str:
        name = {"b": "bool", "e": "float16", "E": "bfloat16", "s": "struct"}.get(self.kind)
        name = name or {"f": "float", "i": "int", "u": "uint"}[self.kind] + str(8 * self.size)
        return f"a pointer to {name}" if self.pointer else name


class _Options(ctypes.Structure):
    _fields_ = (("schedule", ctypes.c_int), ("seed", ctypes.c_uint), ("flush", ctypes.c_int))


def storage_kind(dtype: np.dtype[Any]) -> tuple[str, int]:
    """Kind and bytes of an array's elements. NumPy has no bfloat16: arrays of 2 opaque bytes ("V2") stand for it."""
    if dtype == np.float16:
        return "e", 2
    if dtype == np.dtype("V2") or dtype.name == "bfloat16":
        return "E", 2
    return dtype.kind, dtype.itemsize


class Traffic(NamedTuple):
    """What a launch read and wrote of large arrays: accesses, and bytes."""

    loads: int
    loaded: int
    stores: int
    stored: int


class CpuKernel:
    """One instance of a kernel; calling it is a launch, as of `cupy.RawKernel`. `traffic` is that of the last one."""

    def __init__(self, library: ctypes.CDLL, identifier: str, name: str) -> None:
        self.name = name
        self._run: Callable[..., int] = getattr(library, f"cudacpu_run_{identifier}")
        found = (ctypes.c_int * 64)()
        count = getattr(library, f"cudacpu_signature_{identifier}")(found)
        self._traffic, self.traffic = library.cudacpu_traffic, Traffic(0, 0, 0, 0)
        self.parameters = [Parameter(chr(v >> 16), v & 255, bool(v >> 8 & 1)) for v in found[:count]]

    def __call__(
        self,
        grid: Sequence[int],
        block: Sequence[int],
        args: Sequence[Any],
        *,
        shared_mem: int = 0,
        schedule: str = "forward",
        seed: int = 0,
        flush: bool = False,
    ) -> None:
        """Run all blocks, the threads of each in the order that `schedule` names. LaunchError names what went wrong.

        `flush`: subnormal numbers are taken for 0, and results that would be such are 0.
        """
        if len(args) != len(self.parameters):
            raise TypeError(f"{self.name}: {len(args)} arguments for {len(self.parameters)} parameters")
        cells = [self._cell(i, given) for i, given in enumerate(args)]
        pointers = (ctypes.c_void_p * len(cells))(*(ctypes.addressof(cell) for cell in cells))
        sizes = [*grid, 1, 1][:3] + [*block, 1, 1][:3]
        options = _Options(SCHEDULES.index(schedule), seed, flush)
        error = ctypes.create_string_buffer(MESSAGE)
        dimensions = (ctypes.c_uint * 6)(*sizes)
        if self._run(dimensions, ctypes.c_size_t(shared_mem), options, pointers, error, ctypes.c_size_t(MESSAGE)):
            raise LaunchError(f"{self.name}: {error.value.decode()}")
        counted = (ctypes.c_ulonglong * 4)()
        self._traffic(counted)
        self.traffic = Traffic(*counted)

    def _cell(self, i: int, given: Any) -> Any:
        """The bytes of an argument. Python's int, float and bool go out as int64, float64 and bool, as in CuPy."""
        parameter = self.parameters[i]
        if given is None:
            kind, size, pointer, data = parameter.kind, parameter.size, True, bytes(8)
        elif isinstance(given, np.ndarray):
            self._check_layout(i, given)
            (kind, size), pointer = storage_kind(given.dtype), True
            data = given.ctypes.data.to_bytes(8, "little")
        else:
            scalar = np.asarray(given)
            kind, size, pointer, data = scalar.dtype.kind, scalar.dtype.itemsize, False, scalar.tobytes()
        if (kind, size, pointer) != parameter:
            found = Parameter(kind, size, pointer)
            raise TypeError(f"{self.name}: parameter {i} is {parameter}; the argument is {found}")
        return (ctypes.c_char * len(data)).from_buffer_copy(data)

    def _check_layout(self, i: int, array: np.ndarray) -> None:
        if array.size and array.shape[-1:] != (1,) and array.ndim and array.strides[-1] != array.itemsize:
            raise TypeError(f"{self.name}: argument {i} has gaps between its elements; a kernel gets its address alone")


class CpuModule:
    """The instances `name_expressions` of templated kernels of one CUDA source, compiled once and kept in a cache."""

    def __init__(
        self, code: str, name_expressions: Sequence[str], *, options: Sequence[str] = (), cache: Path | None = None
    ) -> None:
        names = list(name_expressions)
        exports = "".join(f"CUDACPU_EXPORT(k{i}, {name})\n" for i, name in enumerate(names))
        more = os.environ.get("BNENGINE_CUDA_ON_CPU_FLAGS", "").split()
        library = ctypes.CDLL(str(build(code + exports, (*options, *more), cache or cache_folder())))
        self._kernels = {name: CpuKernel(library, f"k{i}", name) for i, name in enumerate(names)}

    def get_function(self, name: str) -> CpuKernel:
        return self._kernels[name]


def cache_folder() -> Path:
    """Where compiled kernels are kept: $XDG_CACHE_HOME/bnengine/cuda_on_cpu, else a folder of the user's in /tmp."""
    base = os.environ.get("XDG_CACHE_HOME")
    return Path(base) / "bnengine" / "cuda_on_cpu" if base else Path(tempfile.gettempdir()) / f"bnengine-{os.getuid()}"


def build(code: str, options: Sequence[str], folder: Path) -> Path:
    """The shared library of a source; its name is a digest of all that it depends on."""
    compiler = shutil.which("g++")
    if compiler is None:
        raise FileNotFoundError("CpuModule: there is no g++ on the PATH")
    version = subprocess.run([compiler, "--version"], capture_output=True, text=True, check=True).stdout
    headers = [path.read_text(encoding="utf-8") for path in sorted(INCLUDE.iterdir())]
    digest = hashlib.sha256("\0".join([version, *FLAGS, *options, *headers, code]).encode()).hexdigest()
    target = folder / f"{digest}.so"
    if target.exists():
        return target
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / f"{digest}.lock").open("w") as lock, tempfile.TemporaryDirectory(dir=folder) as work:
        fcntl.flock(lock, fcntl.LOCK_EX)  # of processes that test at once, one compiles
        if not target.exists():
            source, library = Path(work) / "kernels.cpp", Path(work) / "kernels.so"
            source.write_text(code, encoding="utf-8")
            command = [compiler, *FLAGS, *options, f"-I{INCLUDE}", "-include", "cuda_cpu.h", str(source), "-o"]
            done = subprocess.run([*command, str(library)], capture_output=True, text=True, check=False)
            if done.returncode:
                raise RuntimeError(f"g++ refuses the kernels:\n{done.stderr[:4000]}")
            library.replace(target)
    return target
