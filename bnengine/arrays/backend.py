"""Array libraries: which can be used on this machine, which one to use, and how arrays are converted."""

import importlib
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import array_api_compat
import numpy as np

from .._typing import Array, DType
from ..errors import BackendError, InputError
from .namespaces import dtype_name, namespace

__all__ = ["Backend", "BackendReport", "available_backends", "get_backend", "namespace"]

VARIABLE = "BNENGINE_BACKEND"
GPU = "cupy"
WITHOUT_BFLOAT16 = ("numpy", GPU)  # the package ml_dtypes gives it to these
NAMES = ("numpy", GPU, "torch", "array_api_strict")
CHOICES = ", ".join(["auto", *(f"{name}, {name}:1" if name == GPU else name for name in NAMES)])
_CUPY_EXTRAS = (
    "Run pip install 'bnengine[cuda13]' where nvidia-smi shows CUDA 13, 'bnengine[cuda12]' where it shows CUDA 12, "
    "or take the backend numpy."
)


@dataclass(frozen=True)
class BackendReport:
    """The state of one array library on this machine.

    Attributes:
        name: of the library.
        version: of the library; None if it is not installed.
        device: the device it computes on; None if it is not usable.
        usable: whether a small computation gave the right answer.
        reason: why it is usable or not.
        cure: what to do if it is not.
    """

    name: str
    version: str | None
    device: str | None
    usable: bool
    reason: str
    cure: str | None = None


@dataclass(frozen=True)
class Backend:
    """An array library and the device that it computes on, as `get_backend` returns it.

    Attributes:
        name: "numpy", "cupy", "torch" or "array_api_strict".
        xp: the namespace of the array API standard.
        device: the library's device object; "cpu" for NumPy.
        why: how it was chosen.
    """

    name: str
    xp: Any = field(repr=False)
    device: Any
    why: str

    @property
    def version(self) -> str:
        """The version of the array library."""
        return _version(importlib.import_module(self.name))

    @property
    def on_gpu(self) -> bool:
        """Whether it computes on a GPU, asynchronously."""
        return self.name == GPU

    def dtype(self, dtype: DType) -> DType:
        """Return the library's dtype for a name such as "float32", a NumPy dtype or one of this library."""
        name = dtype_name(dtype)
        if name == "bfloat16" and self.name in WITHOUT_BFLOAT16:
            return bfloat16(self.name)
        dtype_here = getattr(self.xp, name, None)
        if dtype_here is None or dtype_name(dtype_here) != name:
            raise InputError(f"{self.name}: the dtype must be float32 or float64 (int64 for indices), got {name!r}.")
        return dtype_here

    def asarray(self, x: Any, dtype: DType | None = None, *, copy: bool = False) -> Array:
        """Return `x` as an array of this library on this device.

        Args:
            x: a NumPy array, a (nested) list of numbers, an array of any library with DLPack, or anything that NumPy
                can read. A PyTorch tensor loses its gradient history.
            dtype: a name such as "float32"; None keeps the dtype of `x`.
            copy: True always returns new, writable memory. Without it the result may share memory with `x` and be
                read-only: bnengine itself only reads it.

        Raises:
            InputError: `x` is not an array of booleans, integers or real numbers, or numbers in the host's memory do
                not fit `dtype`.
        """
        if _is_own(x, self.xp):
            return self._own(x, dtype, copy)
        if self.on_gpu and _dlpack_device(x) in _CUDA_MEMORY:
            with self.device:
                return self._own(self.xp.from_dlpack(_detached(x)), dtype, copy)
        host = _host(x)
        if dtype is not None:
            host = _cast(host, dtype_name(dtype))
        if self.name == "numpy":
            return np.array(host) if copy else host
        self.dtype(host.dtype)  # A dtype that the library does not have is named here, before it tries.
        if self.on_gpu:
            with self.device:
                return self.xp.asarray(host)
        bits, as_bits = np.array(host, order="C"), host.dtype.name == "bfloat16"  # which travels as its bits
        array = self.xp.asarray(bits.view(np.int16) if as_bits else bits, device=self.device)
        return array.view(self.dtype("bfloat16")) if as_bits else array

    def _own(self, x: Array, dtype: DType | None, copy: bool) -> Array:
        """Return an array of this library, moved, cast and copied as needed."""
        y = array_api_compat.to_device(_detached(x), self.device)
        if self.name == "numpy":
            y = _plain(y) if dtype is None else _cast(_plain(y), dtype_name(dtype))
        elif dtype is not None:
            y = self.xp.astype(y, self.dtype(dtype), copy=False)
        return self.xp.asarray(y, copy=True) if copy else y

    def to_numpy(self, x: Array, *, copy: bool = False) -> "np.ndarray[Any, Any]":
        """Return `x` as a NumPy array, after waiting for the device if there is one.

        Without `copy` the result may share memory with `x`.
        """
        host = _host(x)
        return np.array(host) if copy else host

    def host(self, x: Any, dtype: DType) -> "np.ndarray[Any, Any]":
        """Return `x` in NumPy's memory and in this dtype; InputError for numbers that do not fit it."""
        return _cast(_host(x), dtype_name(dtype))

    def free_bytes(self) -> int | None:
        """Return the bytes that are free on a GPU, None for a CPU."""
        return int(self.device.mem_info[0]) if self.on_gpu else None

    def synchronize(self) -> None:
        """Wait until the device has finished; does nothing on a CPU."""
        if self.on_gpu:
            self.device.synchronize()


def get_backend(name: "str | Backend | None" = None, *, where: str = "get_backend") -> Backend:
    """Return a backend.

    "auto" is CuPy if a small computation on the GPU gives the right answer, else NumPy; `Backend.why` says which and
    why. "cupy:1" is the second GPU; it becomes CuPy's current device of the calling thread. PyTorch and
    array-api-strict run on the CPU, to cross-check results.

    Args:
        name: "auto", "numpy", "cupy", "cupy:1", "torch" or "array_api_strict"; None takes the environment variable
            BNENGINE_BACKEND, or "auto" if that is not set.
        where: what errors begin with.

    Raises:
        BackendError: an unknown name, or a backend that cannot be used on this machine, with the reason and what to do.
    """
    if isinstance(name, Backend):
        return name
    by = ""
    if name is None:
        name = os.environ.get(VARIABLE) or "auto"
        if name != "auto":
            where = f"environment variable {VARIABLE}"
            by = f" by the {where}"
    if name == "auto":
        return _auto()
    library, index = _parse(name, where)
    report, backend = _PROBES[library](index)
    if backend is None:
        raise BackendError(f"{where}: the backend {name!r} cannot be used: {report.reason}. {report.cure}")
    if library == GPU:
        backend.device.use()
    return Backend(backend.name, backend.xp, backend.device, f"{name} was chosen{by}")


def available_backends() -> list[BackendReport]:
    """Return every backend with its version and device, or why it cannot be used and what to do.

    Tries each one with a small computation, so it imports every installed array library.
    """
    return [probe(0)[0] for probe in _PROBES.values()]


def _auto() -> Backend:
    report, backend = _probe_cupy(0)
    if backend is not None:
        backend.device.use()
        why = f"auto: CuPy {report.version} on {report.device} gave the right answer to a test launch"
        return Backend(backend.name, backend.xp, backend.device, why)
    return _numpy_backend(f"auto: NumPy, since CuPy cannot be used here: {report.reason}")


def _parse(name: Any, where: str) -> tuple[str, int]:
    library, colon, index = name.partition(":") if isinstance(name, str) else ("", "", "")
    if library not in NAMES or (colon and not (library == GPU and index.isascii() and index.isdigit())):
        raise BackendError(f"{where}: the backend must be one of {CHOICES}, got {name!r}.")
    return library, int(index or 0)


# ---- one probe for each library -------------------------------------------------------------------------------------

Probe = tuple[BackendReport, Backend | None]


def _numpy_backend(why: str) -> Backend:
    # Not at the top: it loads all of NumPy's submodules, testing and f2py too, and takes twice as long as NumPy itself.
    return Backend("numpy", importlib.import_module("array_api_compat.numpy"), "cpu", why)


def _probe_numpy(_index: int) -> Probe:
    report = BackendReport("numpy", np.__version__, "cpu", True, "always there: bnengine depends on it")
    return report, _numpy_backend(report.reason)


def _probe_cupy(index: int) -> Probe:
    """Run a launch with a known answer: CuPy imports also on machines where none of its kernels run."""
    try:
        cupy = importlib.import_module("cupy")
    except ImportError as error:
        return _unusable("cupy", None, _not_imported(error, "cupy"), _CUPY_EXTRAS)
    version = _version(cupy)
    cure = f"Check that nvidia-smi works and that CuPy fits its CUDA version. {_CUPY_EXTRAS}"
    try:
        count = int(cupy.cuda.runtime.getDeviceCount())
    except Exception as error:  # CuPy has many classes for a missing driver, compiler or library, some of them private.
        return _unusable("cupy", version, f"CuPy finds no driver or no GPU ({_brief(error)})", cure)
    try:
        if index >= count:
            reason = f"there is no GPU number {index}: CuPy sees {count}, numbered from 0"
            return _unusable("cupy", version, reason, "Take a smaller number, or the backend numpy.")
        device = cupy.cuda.Device(index)
        with device:
            x = cupy.arange(8, dtype=cupy.float32)
            answer = float((x * 2).sum())
            label = f"{_gpu_name(cupy, index)} (GPU {index} of {count})"
    except Exception as error:  # As above.
        return _unusable("cupy", version, f"a small computation on the GPU failed ({_brief(error)})", cure)
    if answer != 56.0:
        reason = f"a small computation on the GPU gave {answer:g} instead of 56"
        return _unusable("cupy", version, reason, cure)
    report = BackendReport("cupy", version, label, True, "a small computation gave the right answer")
    return report, Backend("cupy", importlib.import_module("array_api_compat.cupy"), device, report.reason)


def _probe_torch(_index: int) -> Probe:
    def load() -> tuple[Any, Any]:
        return importlib.import_module("array_api_compat.torch"), importlib.import_module("torch").device("cpu")

    return _probe_witness("torch", load, "Run pip install torch, or take the backend numpy.")


def _probe_strict(_index: int) -> Probe:
    def load() -> tuple[Any, Any]:
        xp = importlib.import_module("array_api_strict")
        return xp, xp.Device("CPU_DEVICE")

    return _probe_witness("array_api_strict", load, "Run pip install array-api-strict, or take the backend numpy.")


def _probe_witness(name: str, load: Callable[[], tuple[Any, Any]], cure: str) -> Probe:
    try:
        xp, device = load()
        answer = float(xp.sum(xp.arange(8, dtype=xp.float32, device=device) * 2))
    except ImportError as error:
        return _unusable(name, None, _not_imported(error, name), cure)
    except Exception as error:  # Whatever a broken installation raises is the reason to show.
        return _unusable(name, None, f"a small computation failed ({_brief(error)})", cure)
    version = _version(importlib.import_module(name))
    if answer != 56.0:
        return _unusable(name, version, f"a small computation gave {answer:g} instead of 56", cure)
    report = BackendReport(name, version, "cpu", True, "runs the same code to cross-check results")
    return report, Backend(name, xp, device, report.reason)


_PROBES: dict[str, Callable[[int], Probe]] = dict(
    zip(NAMES, (_probe_numpy, _probe_cupy, _probe_torch, _probe_strict), strict=True)
)


def _unusable(name: str, version: str | None, reason: str, cure: str) -> Probe:
    return BackendReport(name, version, None, False, reason, cure), None


def _brief(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0].strip()}" if lines else type(error).__name__


def _not_imported(error: ImportError, name: str) -> str:
    if isinstance(error, ModuleNotFoundError) and error.name == name:
        return f"{name} is not installed"
    return f"{name} cannot be imported ({_brief(error)})"


def _version(module: Any) -> str:
    return str(getattr(module, "__version__", "unknown"))


def _gpu_name(cupy: Any, index: int) -> str:
    name = cupy.cuda.runtime.getDeviceProperties(index)["name"]
    return name.decode(errors="replace") if isinstance(name, bytes) else str(name)


# ---- arrays from elsewhere ------------------------------------------------------------------------------------------

_CPU_MEMORY = (1, 3, 11)  # DLPack's numbers for memory that a CPU can read: CPU, CUDA host, ROCm host.
_CUDA_MEMORY = (2, 13)  # CUDA, CUDA managed.


def _is_own(x: Any, xp: Any) -> bool:
    return bool(array_api_compat.is_array_api_obj(x)) and array_api_compat.array_namespace(x) is xp


def _detached(x: Array) -> Array:
    return x.detach() if array_api_compat.is_torch_array(x) else x


def _dlpack_device(x: Any) -> int | None:
    return int(x.__dlpack_device__()[0]) if hasattr(x, "__dlpack_device__") else None


def bfloat16(owner: str) -> DType:
    """Return NumPy's dtype for bfloat16 from the package ml_dtypes; CuPy has the same one. `owner` begins the error."""
    try:
        return np.dtype(importlib.import_module("ml_dtypes").bfloat16)
    except ImportError as error:
        raise InputError(
            f"{owner}: bfloat16 needs the package ml_dtypes, which is not installed. Run `pip install "
            "ml_dtypes`, or take float16."
        ) from error


def _host(x: Any) -> "np.ndarray[Any, Any]":
    """Return `x` in NumPy's memory, without a copy if the CPU can read it."""
    if isinstance(x, np.ndarray):
        return _plain(x)
    try:
        return _plain(_fetched(x))
    except InputError:
        raise
    except Exception as error:  # Each library has its own words for memory or a dtype that it cannot hand on.
        kind = f"{type(x).__module__}.{type(x).__name__}"
        raise InputError(
            f"asarray: {kind} cannot be read as an array ({_brief(error)}). Give a NumPy array, a rectangular list of "
            "numbers, or an array with DLPack in float32 or float64."
        ) from error


def _fetched(x: Any) -> Any:
    if array_api_compat.is_cupy_array(x):
        return x.get()
    if array_api_compat.is_torch_array(x):
        host = x.detach().cpu().resolve_neg()
        if dtype_name(x.dtype) != "bfloat16":
            return np.from_dlpack(host)
        return np.from_dlpack(host.contiguous().view(namespace(x).int16)).view(bfloat16("numpy"))
    memory = _dlpack_device(x)
    if memory is None:
        return np.asarray(x)
    return np.from_dlpack(x) if memory in _CPU_MEMORY else np.from_dlpack(x, device="cpu")


def _plain(x: "np.ndarray[Any, Any]") -> "np.ndarray[Any, Any]":
    if isinstance(x, np.ma.MaskedArray):
        raise InputError("asarray: a masked array would lose its mask. Fill it first: x.filled(value).")
    if x.dtype.kind not in "biuf" and x.dtype.name != "bfloat16":
        raise InputError(
            f"asarray: an array must have booleans, integers or real numbers, got {x.dtype}. Convert it first "
            "(labels may be of any kind where data is loaded: see bnengine.data)."
        )
    native = x if x.dtype.isnative else x.astype(x.dtype.newbyteorder("="))
    return np.asarray(native)


def _cast(x: "np.ndarray[Any, Any]", name: str) -> "np.ndarray[Any, Any]":
    try:
        target = bfloat16("asarray") if name == "bfloat16" else np.dtype(name)
    except TypeError as error:
        raise InputError(f"asarray: the dtype must be float32 or float64 (int64 for indices), got {name!r}.") from error
    try:
        with np.errstate(over="raise", invalid="raise"):
            return x.astype(target, copy=False)
    except FloatingPointError as error:
        raise InputError(
            f"asarray: a number in the {x.dtype} array does not fit {name}. Scale it, or take float64."
        ) from error
