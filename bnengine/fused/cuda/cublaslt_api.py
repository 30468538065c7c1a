"""cublasLt through ctypes: where the library is, its functions, its descriptors and what its status codes mean.

Every number here is in cublasLt.h, cublas_api.h or library_types.h, and agrees in nvidia-cublas-cu12 12.9.3.13 and
nvidia-cublas 13.10.0.20; a test compares them with the headers that are installed. Nothing here needs CuPy or a GPU.
"""

import ctypes
import importlib.metadata
import importlib.util
import os
import sys
import weakref
from collections.abc import Iterator, Mapping, Sequence
from ctypes import POINTER, c_float, c_int, c_int32, c_int64, c_size_t, c_uint32, c_uint64, c_void_p
from enum import Enum, IntEnum
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from ...errors import BackendError

MAJORS = (13, 12)  # the versions whose headers were read, newest first
_DISTRIBUTIONS = {13: "cupy-cuda13x", 12: "cupy-cuda12x"}
_WHEELS = {13: ("cu13/lib", "cublas/lib"), 12: ("cublas/lib",)}  # below site-packages/nvidia
_CURE = (
    "install nvidia-cublas (CUDA 13) or nvidia-cublas-cu12 (CUDA 12); bnengine[cuda13] and bnengine[cuda12] bring it"
)


class Refusal(NamedTuple):
    """Why there is no plan: the caller falls back on another product, and says so."""

    reason: str


class Status(IntEnum):
    """cublasStatus_t."""

    SUCCESS = 0
    NOT_INITIALIZED = 1
    ALLOC_FAILED = 3
    INVALID_VALUE = 7
    ARCH_MISMATCH = 8
    MAPPING_ERROR = 11
    EXECUTION_FAILED = 13
    INTERNAL_ERROR = 14
    NOT_SUPPORTED = 15
    LICENSE_ERROR = 16


_CURES = {
    Status.NOT_INITIALIZED: "there is no NVIDIA driver, or one too old for this library, or no GPU: see nvidia-smi",
    Status.ALLOC_FAILED: "free memory of the device or the host",
    Status.INVALID_VALUE: "the addresses, strides or the workspace do not fit the plan: build it for these arrays",
    Status.ARCH_MISMATCH: "this GPU cannot run the algorithm: build the plan on the device that runs it",
    Status.NOT_SUPPORTED: "take another precision, or no epilogue",
    Status.EXECUTION_FAILED: "an earlier kernel may have failed: run with CUDA_LAUNCH_BLOCKING=1 to see which",
}


# cudaDataType_t; cublasComputeType_t, what is multiplied and what it is summed in; cublasOperation_t;
# cublasLtEpilogue_t, what is done to the product before it is stored; cublasLtReductionScheme_t, how the parts of a sum
# over k that was split are put together.
DataType = IntEnum("DataType", {"R_32F": 0, "R_64F": 1, "R_16F": 2, "R_16BF": 14})
Compute = IntEnum("Compute", {"F32": 68, "F64": 70, "F32_FAST_TF32": 77})
Operation = IntEnum("Operation", {"N": 0, "T": 1})
Epilogue = IntEnum("Epilogue", {"DEFAULT": 1, "BIAS": 4})
ReductionScheme = IntEnum("ReductionScheme", {"NONE": 0, "INPLACE": 1, "COMPUTE_TYPE": 2, "OUTPUT_TYPE": 4})


class Attribute(Enum):
    """One attribute of an opaque object: its number and the type of its value."""

    def __init__(self, code: int, type_: Any) -> None:
        self.code, self.type = code, type_


class MatmulDesc(Attribute):
    """cublasLtMatmulDescAttributes_t."""

    COMPUTE_TYPE = 0, c_int32
    SCALE_TYPE = 1, c_int32
    POINTER_MODE = 2, c_int32
    TRANSA = 3, c_int32
    TRANSB = 4, c_int32
    EPILOGUE = 7, c_uint32
    BIAS_POINTER = 8, c_void_p
    BIAS_DATA_TYPE = 26, c_int32


class MatrixLayout(Attribute):
    """cublasLtMatrixLayoutAttribute_t."""

    TYPE = 0, c_uint32
    ORDER = 1, c_int32
    ROWS = 2, c_uint64
    COLS = 3, c_uint64
    LD = 4, c_int64


class MatmulPreference(Attribute):
    """cublasLtMatmulPreferenceAttributes_t."""

    MAX_WORKSPACE_BYTES = 1, c_uint64
    REDUCTION_SCHEME_MASK = 3, c_uint32
    MIN_ALIGNMENT_A_BYTES = 5, c_uint32
    MIN_ALIGNMENT_B_BYTES = 6, c_uint32
    MIN_ALIGNMENT_C_BYTES = 7, c_uint32
    MIN_ALIGNMENT_D_BYTES = 8, c_uint32


class AlgoConfig(Attribute):
    """cublasLtMatmulAlgoConfigAttributes_t."""

    REDUCTION_SCHEME = 3, c_uint32


class Algo(ctypes.Structure):
    """cublasLtMatmulAlgo_t: an algorithm with its settings, opaque."""

    _fields_ = (("data", c_uint64 * 8),)


class HeuristicResult(ctypes.Structure):
    """cublasLtMatmulHeuristicResult_t."""

    _fields_ = (("algo", Algo), ("workspaceSize", c_size_t), ("state", c_int), ("wavesCount", c_float),
                ("reserved", c_int * 4))  # fmt: skip


_SET = (c_void_p, c_int, c_void_p, c_size_t)
_GET = (*_SET, POINTER(c_size_t))
_CREATED = {
    "MatmulDesc": (c_int, c_int), "MatrixLayout": (c_int, c_uint64, c_uint64, c_int64), "MatmulPreference": ()
}  # fmt: skip
PROTOTYPES: Mapping[str, tuple[Any, ...]] = {
    "cublasLtCreate": (POINTER(c_void_p),),
    "cublasLtDestroy": (c_void_p,),
    **{f"cublasLt{kind}Create": (POINTER(c_void_p), *types) for kind, types in _CREATED.items()},
    **{f"cublasLt{kind}SetAttribute": _SET for kind in _CREATED},
    **{f"cublasLt{kind}GetAttribute": _GET for kind in _CREATED},
    **{f"cublasLt{kind}Destroy": (c_void_p,) for kind in _CREATED},
    "cublasLtMatmulAlgoGetHeuristic": (*[c_void_p] * 7, c_int, POINTER(HeuristicResult), POINTER(c_int)),
    "cublasLtMatmulAlgoConfigGetAttribute": (POINTER(Algo), *_GET[1:]),
    "cublasLtMatmul": (*[c_void_p] * 12, POINTER(Algo), c_void_p, c_size_t, c_void_p),
}


class Library:
    """The functions of one libcublasLt; `functions` is what ctypes loaded, with the types of all arguments declared."""

    def __init__(self, functions: Any, path: str) -> None:
        self.functions, self.path = functions, path
        number = int(functions.cublasLtGetVersion())
        self.version = f"{number // 10000}.{number // 100 % 100}.{number % 100}"

    def status(self, function: str, *arguments: Any) -> int:
        """What the function returns."""
        return int(getattr(self.functions, function)(*arguments))

    def call(self, function: str, *arguments: Any, what: object = "") -> None:
        """Call the function; another status than success raises BackendError."""
        status = self.status(function, *arguments)
        if status != Status.SUCCESS:
            raise BackendError(self.explain(function, status, what))

    def explain(self, function: str, status: int, what: object = "") -> str:
        """What went wrong, for what, and the cure."""
        known = status in {int(s) for s in Status}
        name = f"CUBLAS_STATUS_{Status(status).name}" if known else f"the unknown status {status}"
        cure = _CURES.get(Status(status), "") if known else ""
        text = f"cublasLt {self.version}: {function} returned {name}{what and f' for {what}'}"
        return f"{text}; {cure or f'this should not happen; the library is {self.path}'}"


class Descriptor:
    """An opaque object of cublasLt: a MatmulDesc, MatrixLayout or MatmulPreference, destroyed when it is let go."""

    def __init__(self, library: Library, kind: type[Attribute], *arguments: Any) -> None:
        self._library, self._kind, self.pointer = library, f"cublasLt{kind.__name__}", c_void_p()
        library.call(f"{self._kind}Create", ctypes.byref(self.pointer), *arguments)
        weakref.finalize(self, library.status, f"{self._kind}Destroy", self.pointer).atexit = False

    def set(self, attribute: Attribute, value: int) -> None:
        """Set an attribute."""
        typed = attribute.type(value)
        given = self.pointer, attribute.code, ctypes.byref(typed), ctypes.sizeof(typed)
        self._library.call(f"{self._kind}SetAttribute", *given, what=f"{attribute.name} = {value}")


class Handle:
    """The context of cublasLt on the device that is current when it is made."""

    def __init__(self, library: Library) -> None:
        self.pointer = c_void_p()
        library.call("cublasLtCreate", ctypes.byref(self.pointer))
        # Not at the interpreter's end: the driver may be gone by then.
        weakref.finalize(self, library.status, "cublasLtDestroy", self.pointer).atexit = False


def declare(functions: Any) -> Any:
    """The loaded library with its argument and result types; AttributeError if it lacks a function."""
    functions.cublasLtGetVersion.restype = c_size_t
    for name, types in PROTOTYPES.items():
        function = getattr(functions, name)
        function.argtypes, function.restype = types, c_int
    return functions


def candidates(wheels: Sequence[str], majors: Sequence[int], environment: Mapping[str, str]) -> Iterator[str]:
    """What to try, in this order for each version: pip's packages, the loader's search path, CUDA_PATH and CUDA_HOME.

    `wheels` are the folders called nvidia on Python's path.
    """
    for major in majors:
        soname = f"libcublasLt.so.{major}"
        paths = [Path(root) / folder / soname for root in wheels for folder in _WHEELS[major]]
        yield from (str(path) for path in paths if path.is_file())
        yield soname
        homes = [environment[name] for name in ("CUDA_PATH", "CUDA_HOME") if environment.get(name)]
        paths = [Path(home) / folder / soname for home in homes for folder in ("lib64", "lib")]
        yield from (str(path) for path in paths if path.is_file())


@cache
def load() -> Library | Refusal:
    """libcublasLt, preferably of CuPy's CUDA version; or what was tried, why it failed, and the cure."""
    if sys.platform != "linux":
        return Refusal(f"cublasLt is looked for on Linux only, and this is {sys.platform}")
    failures = []
    for name in candidates(_wheel_folders(), _majors(), os.environ):
        try:
            return Library(declare(ctypes.CDLL(name)), name)
        except (OSError, AttributeError) as error:
            failures.append(f"{name} ({error})")
    return Refusal(f"cublasLt cannot be loaded: tried {', '.join(failures)}; {_CURE}")


def _wheel_folders() -> list[str]:
    spec = importlib.util.find_spec("nvidia")
    return list(spec.submodule_search_locations or ()) if spec else []


def _majors() -> list[int]:
    return sorted(MAJORS, key=lambda major: not _installed(_DISTRIBUTIONS[major]))


def _installed(distribution: str) -> bool:
    try:
        importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True
