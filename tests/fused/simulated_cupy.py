"""A device to launch on where there is none: what the launchers call of CuPy, on NumPy's memory, kernels under g++.

cublasLt is the model of tests/fused/cublaslt_model.py. Every array lies between guard zones at an address that is a
multiple of 256, as in CuPy's pool, and begins full of NaN. A call whose arguments do not fit CuPy 14.2's signature
(cupy_14_2_signatures.json) is a TypeError, as is an array where the host's memory was meant. `installed(monkeypatch)`
puts it in CuPy's place.
"""

import inspect
import itertools
import json
import operator
import re
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import array_api_compat
import numpy as np
from array_api_compat import numpy as host

from bnengine.backend import Backend
from bnengine.fused.cuda import _load, cublaslt, cublaslt_api, update
from tests.cuda_on_cpu.instances import INSTANCES
from tests.cuda_on_cpu.launch import module as compiled
from tests.cuda_on_cpu.module import CpuModule
from tests.fused.cublaslt_model import Model

LISTED = json.loads(Path(__file__).with_name("cupy_14_2_signatures.json").read_text(encoding="utf-8"))
TYPES = {"str": str, "tuple": tuple, "bool": bool}
GUARD, PATTERN, ALIGNMENT = 256, 0xA5, 256
STATE = SimpleNamespace(schedule="forward", seed=0, launches=[], model=None)
KINDS = inspect._ParameterKind
INSTANCE = re.compile(r"[\w:]+<(\w+), (\d+)")  # what it stores, and how many it reads at once
STORED = {"float": "float32", "double": "float64", "__half": "float16"}
FLUSHED = 0.0  # what subnormal numbers that are taken for 0 may be off by: here they are not


def bound(name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> inspect.BoundArguments:
    """The arguments as CuPy's `name` takes them; a TypeError if it would not, also for one of another type."""
    parameters = [
        inspect.Parameter(p, KINDS[kind], default=None if default else inspect.Parameter.empty)
        for p, kind, default, _ in LISTED["signatures"][name]
    ]
    found = inspect.Signature(parameters).bind(*args, **kwargs)
    for p, _, default, declared in LISTED["signatures"][name]:
        value = found.arguments.get(p)
        if p in found.arguments and declared in TYPES and not isinstance(value, TYPES[declared]):
            raise TypeError(f"cupy.{name}: {p} is {value!r}; it must be a {declared}")
        if value is None and not default and declared:
            raise TypeError(f"cupy.{name}: {p} is None")
    return found


class Zone:
    """Memory of one array, with what lies before and behind it."""

    def __init__(self, size: int) -> None:
        self._all = np.full(size + 2 * GUARD + ALIGNMENT, PATTERN, np.uint8)
        self._start = -self._all.ctypes.data % ALIGNMENT + GUARD
        self._stop = self._start + size
        self.bytes = self._all[self._start : self._stop]
        self.bytes[...] = 0xFF

    def check(self, what: str) -> None:
        before, behind = self._all[: self._start], self._all[self._stop :]
        assert np.all(before == PATTERN), f"{what}: wrote before an array of {self.bytes.size} bytes"
        assert np.all(behind == PATTERN), f"{what}: wrote behind an array of {self.bytes.size} bytes"


class ndarray:
    """A device's array. NumPy cannot read it: `get` copies it to the host."""

    __slots__ = ("held", "zone")
    __array_priority__ = 100

    def __init__(self, held: np.ndarray, zone: Zone) -> None:
        self.held, self.zone = held, zone

    shape = property(lambda self: self.held.shape)
    dtype = property(lambda self: self.held.dtype)
    ndim = property(lambda self: self.held.ndim)
    size = property(lambda self: self.held.size)
    itemsize = property(lambda self: self.held.itemsize)
    nbytes = property(lambda self: self.held.nbytes)
    strides = property(lambda self: self.held.strides)
    flags = property(lambda self: self.held.flags)
    device = property(lambda self: DEVICE)  # noqa: ARG005
    data = property(lambda self: SimpleNamespace(ptr=self.held.ctypes.data))
    T = property(lambda self: ndarray(self.held.T, self.zone))

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        """As CuPy has it: no strides where the array is contiguous."""
        strides = None if self.held.flags.c_contiguous else self.strides
        given = {"shape": self.shape, "typestr": self.dtype.str, "strides": strides, "version": 3}
        return {**given, "data": (self.held.ctypes.data, False)}

    def __array__(self, *args: Any, **kwargs: Any) -> Any:
        raise TypeError("Implicit conversion to a NumPy array is not allowed. Please use `.get()`")

    def __len__(self) -> int:
        return len(self.held)

    def __bool__(self) -> bool:
        return bool(self.held)

    def __int__(self) -> int:
        return int(self.held)

    def __float__(self) -> float:
        return float(self.held)

    def __getitem__(self, key: Any) -> "ndarray":
        return given_back(self.held[unwrapped(key)], [self])

    def __setitem__(self, key: Any, value: Any) -> None:
        if isinstance(value, np.ndarray):
            raise TypeError("Unsupported type <class 'numpy.ndarray'>")
        with np.errstate(all="ignore"):
            self.held[unwrapped(key)] = unwrapped(value)

    def fill(self, *args: Any, **kwargs: Any) -> None:
        self.held.fill(bound("ndarray.fill", args, kwargs).arguments["value"])

    def get(self, *args: Any, **kwargs: Any) -> np.ndarray:
        bound("ndarray.get", args, kwargs)
        return self.held.copy()

    def item(self, *args: Any, **kwargs: Any) -> Any:
        bound("ndarray.item", args, kwargs)
        return self.held.item()

    def reshape(self, *args: Any, **kwargs: Any) -> "ndarray":
        bound("ndarray.reshape", args, kwargs)
        return given_back(self.held.reshape(*args, **kwargs), [self])

    def view(self, *args: Any, **kwargs: Any) -> "ndarray":
        dtype = bound("ndarray.view", args, kwargs).arguments["dtype"]
        return ndarray(self.held.view(dtype), self.zone)


ndarray.__module__ = "cupy"


COMPARISONS = ("lt", "le", "gt", "ge", "eq", "ne")
BINARY = ("add", "sub", "mul", "truediv", "floordiv", "pow", "matmul", "mod", "and", "or", "xor")


def _operator(name: str) -> None:
    function = getattr(operator, f"__{name}__")
    setattr(ndarray, f"__{name}__", lambda *operands: elementwise(function, *operands))
    if name in BINARY:
        setattr(ndarray, f"__r{name}__", lambda a, b: elementwise(function, b, a))


def elementwise(function: Any, *operands: Any) -> Any:
    if any(isinstance(a, np.ndarray) for a in operands):
        raise TypeError("Unsupported type <class 'numpy.ndarray'>")
    with np.errstate(all="ignore"):
        return given_back(function(*map(unwrapped, operands)), operands)


for _name in (*BINARY, *COMPARISONS, "neg", "pos", "abs", "invert"):
    _operator(_name)


def unwrapped(value: Any) -> Any:
    """NumPy's side of arrays, also inside of tuples and lists."""
    if isinstance(value, ndarray):
        return value.held
    if isinstance(value, tuple | list):
        return type(value)(map(unwrapped, value))
    return value


def given_back(result: Any, operands: Any) -> Any:
    """A result of NumPy's as an array of the device: a view of an operand, or memory of its own."""
    if isinstance(result, tuple | list):
        made = [given_back(r, operands) for r in result]
        return type(result)(*made) if hasattr(result, "_fields") else type(result)(made)
    if not isinstance(result, np.ndarray | np.generic):
        return result
    result = np.asarray(result)
    for operand in operands:
        if isinstance(operand, ndarray) and np.may_share_memory(result, operand.held):
            return ndarray(result, operand.zone)
    return on_device(result)


def fresh(shape: Any, dtype: Any = float) -> ndarray:
    """Memory that nothing was written to."""
    dtype, shape = np.dtype(dtype), (shape,) if isinstance(shape, int) else tuple(shape)
    zone = Zone(int(np.prod(shape)) * dtype.itemsize)
    return ndarray(zone.bytes.view(dtype).reshape(shape), zone)


def on_device(x: np.ndarray) -> ndarray:
    array = fresh(x.shape, x.dtype)
    array.held[...] = x
    return array


def off_device(x: Any) -> Any:
    """NumPy's arrays for the device's, in any structure of tuples."""
    if isinstance(x, tuple) and hasattr(x, "_fields"):
        return type(x)(*map(off_device, x))
    return x.get() if isinstance(x, ndarray) else x


# -- kernels


class RawKernel:
    """A kernel that runs, checked and under the schedule of the moment, at once."""

    def __init__(self, cpu: Any) -> None:
        self.cpu = cpu

    def __call__(self, *args: Any, **kwargs: Any) -> None:
        given = bound("RawKernel.__call__", args, kwargs).arguments
        grid, block, arguments = given["grid"], given["block"], given["args"]
        if not (isinstance(grid, tuple) and isinstance(block, tuple) and isinstance(arguments, tuple)):
            raise TypeError(f"{self.cpu.name}: grid, block and arguments are tuples")
        limits = zip((*grid, 1, 1), (2**31 - 1, 65535, 65535), strict=False)
        assert all(0 < n <= limit for n, limit in limits), f"{self.cpu.name}: a grid of {grid}"
        passed = [self._argument(i, a) for i, a in enumerate(arguments)]
        self._check_alignment(arguments)
        STATE.launches.append(self.cpu.name)
        options = {"schedule": STATE.schedule, "seed": STATE.seed}
        self.cpu(grid, block, passed, shared_mem=given.get("shared_mem", 0), **options)
        for a in arguments:
            if isinstance(a, ndarray):
                a.zone.check(self.cpu.name)

    def _check_alignment(self, arguments: tuple[Any, ...]) -> None:
        """Where 16 bytes are read at once, a GPU faults at other addresses; a CPU does not. The largest are read so."""
        found = INSTANCE.match(self.cpu.name)
        if found is None or found[2] == "1":
            return
        stored = [a for a in arguments if isinstance(a, ndarray) and a.dtype == STORED[found[1]]]
        for a in stored:
            if a.size == max(b.size for b in stored) and a.held.ctypes.data % 16:
                raise AssertionError(f"{self.cpu.name}: an array at an address that is no multiple of 16")

    def _argument(self, i: int, given: Any) -> Any:
        """CuPy takes its own arrays and NumPy's scalars; None would be a kernel parameter at address 0."""
        if isinstance(given, ndarray):
            return given.held
        if not isinstance(given, np.generic):
            raise TypeError(f"{self.cpu.name}: argument {i} is a {type(given).__name__}; its size is left to chance")
        pointer = i < len(self.cpu.parameters) and self.cpu.parameters[i].pointer
        return None if pointer and given.dtype == np.uint64 and given == 0 else given


class RawModule:
    """Instances of kernels, compiled by g++."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        given = bound("RawModule", args, kwargs).arguments
        self.code, self.names = given["code"], given["name_expressions"]
        assert all(isinstance(o, str) for o in given["options"])

    def get_function(self, *args: Any, **kwargs: Any) -> RawKernel:
        name = bound("RawModule.get_function", args, kwargs).arguments["name"]
        if name not in self.names:
            raise KeyError(f"{name} is not one of the name expressions {self.names}")
        for file, instances in INSTANCES.items():  # compiled together, and for the proofs of the kernels too
            if name in instances and _load.source(file) == self.code:
                return RawKernel(compiled(file, instances)(name))
        return RawKernel(CpuModule(self.code, (name,)).get_function(name))


# -- the rest of the module


class Device:
    """The one device."""

    attributes: dict[str, int] = {"MultiProcessorCount": 3}  # noqa: RUF012 -- as in CuPy

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.id = int(bound("cuda.Device", args, kwargs).arguments.get("device") or 0)
        assert self.id == 0

    def __enter__(self) -> "Device":
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def use(self) -> None:
        pass

    def synchronize(self) -> None:
        pass


DEVICE = Device()


def empty(*args: Any, **kwargs: Any) -> ndarray:
    given = bound("empty", args, kwargs).arguments
    return fresh(given["shape"], given.get("dtype", float))


def zeros(*args: Any, **kwargs: Any) -> ndarray:
    given = bound("zeros", args, kwargs).arguments
    array = fresh(given["shape"], given.get("dtype", float))
    array.held[...] = 0
    return array


def asarray(*args: Any, **kwargs: Any) -> ndarray:
    given = bound("asarray", args, kwargs).arguments
    x, dtype = given["a"], given.get("dtype")
    if isinstance(x, ndarray):
        return x if dtype is None or x.dtype == dtype else on_device(x.held.astype(dtype))
    return on_device(np.asarray(x, dtype))


def matmul(*args: Any, **kwargs: Any) -> ndarray:
    bound("matmul", args, kwargs)
    a, b = args
    out = kwargs["out"]
    with np.errstate(all="ignore"):
        np.matmul(a.held, b.held, out=out.held)
    out.zone.check("matmul")
    return out


def get_current_stream(*args: Any, **kwargs: Any) -> Any:
    bound("cuda.get_current_stream", args, kwargs)
    return SimpleNamespace(ptr=0)


CUPY = ModuleType("cupy")
CUPY.__dict__.update(
    __version__=LISTED["version"], ndarray=ndarray, RawModule=RawModule, empty=empty, zeros=zeros, asarray=asarray,
    matmul=matmul, cuda=SimpleNamespace(Device=Device, get_current_stream=get_current_stream),
)  # fmt: skip


class Namespace(ModuleType):
    """array_api_compat.cupy: the functions of the standard, NumPy's own on the device's memory."""

    def empty(self, shape: Any, *, dtype: Any = float, device: Any = None) -> ndarray:
        assert device is None or device is DEVICE
        return fresh(shape, dtype)

    def __getattr__(self, name: str) -> Any:
        found = getattr(host, name)
        if isinstance(found, type) or not callable(found):
            return found

        def function(*args: Any, device: Any = None, **kwargs: Any) -> Any:
            assert device is None or device is DEVICE
            operands = [a for a in itertools.chain(args, kwargs.values()) if isinstance(a, ndarray)]
            for a in args:
                operands += [b for b in a if isinstance(b, ndarray)] if isinstance(a, tuple | list) else []
            if name != "asarray" and any(isinstance(a, np.ndarray) for a in args):
                raise TypeError(f"{name}: Unsupported type <class 'numpy.ndarray'>")
            kwargs = {k: unwrapped(v) for k, v in kwargs.items()}
            with np.errstate(all="ignore"):
                return given_back(found(*map(unwrapped, args), **kwargs), operands)

        return function


NAMESPACE = Namespace("array_api_compat.cupy")


def backend() -> Backend:
    """The backend of this device."""
    return Backend("cupy", NAMESPACE, DEVICE, "simulated")


def installed(monkeypatch: Any) -> None:
    """Until the test ends, `import cupy` gives this module."""
    monkeypatch.setitem(sys.modules, "cupy", CUPY)
    monkeypatch.setitem(sys.modules, "array_api_compat.cupy", NAMESPACE)
    monkeypatch.setattr(array_api_compat, "cupy", NAMESPACE, raising=False)
    STATE.model = Model()
    monkeypatch.setattr(cublaslt_api, "load", lambda: cublaslt_api.Library(STATE.model, "the model"))
    monkeypatch.setattr(_load, "_arrivals", {})
    monkeypatch.setattr(_load, "_workspaces", {})
    monkeypatch.setattr(update, "_uploaded", {})
    STATE.schedule, STATE.launches = "forward", []
    forget()


def forget() -> None:
    """No kernel and no plan is left over, neither from here nor for whoever comes next."""
    for cached in (_load.refusal, _load.function, _load.multiprocessors, cublaslt._planned, cublaslt._handle):
        cached.cache_clear()
