"""The simulated device's arrays: NumPy's memory between guard zones, which the host cannot read but by `get`."""

import operator
from typing import Any

import numpy as np

from tests.cuda_on_cpu.redzones import forbid
from tests.fused import simulated_streams as streams
from tests.fused.signatures import bound

GUARD, PATTERN, ALIGNMENT = 512, 0xA5, 256  # with 1 KiB of guards, NumPy gives the memory of an array back at once


class Zone:
    """Memory of one array, with guard zones before and after it."""

    def __init__(self, size: int) -> None:
        self._all = np.full(size + 2 * GUARD + ALIGNMENT, PATTERN, np.uint8)
        self._start = -self._all.ctypes.data % ALIGNMENT + GUARD
        self._stop = self._start + size
        self.bytes = self._all[self._start : self._stop]
        self.bytes[...] = 0xFF
        forbid(self._all[: self._start])
        forbid(self._all[self._stop :])
        streams.POOL.take(size)

    def __del__(self) -> None:
        streams.POOL.give(self._stop - self._start)

    def check(self, what: str) -> None:
        for guard, where in ((self._all[: self._start], "before"), (self._all[self._stop :], "after")):
            # By NumPy alone: the address sanitizer ends a process that copies these bytes.
            assert not (guard != PATTERN).any(), f"{what}: wrote {where} an array of {self.bytes.size} bytes"


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
    data = property(lambda self: streams.MemoryPointer(self.held))
    T = property(lambda self: ndarray(self.held.T, self.zone))

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        """As CuPy has it: no strides where the array is contiguous."""
        strides = None if self.held.flags.c_contiguous else self.strides
        given = {"shape": self.shape, "typestr": self.dtype.str, "strides": strides, "version": 3}
        return {**given, "data": (self.held.ctypes.data, False)}

    def __dlpack_device__(self) -> tuple[int, int]:
        """CUDA's number in DLPack, and the device's."""
        return 2, 0

    def __array__(self, *args: Any, **kwargs: Any) -> Any:
        raise TypeError("Implicit conversion to a NumPy array is not allowed. Please use `.get()`")

    def __len__(self) -> int:
        return len(self.held)

    def __bool__(self) -> bool:
        streams.read("bool")
        return bool(self.held)

    def __int__(self) -> int:
        streams.read("int")
        return int(self.held)

    def __float__(self) -> float:
        streams.read("float")
        return float(self.held)

    def __getitem__(self, key: Any) -> "ndarray":
        if not is_basic(key):
            streams.finish("indexing by an array")
        return given_back(self.held[unwrapped(key)], [self])

    def __setitem__(self, key: Any, value: Any) -> None:
        if isinstance(value, np.ndarray):
            raise TypeError("Unsupported type <class 'numpy.ndarray'>")
        into, key, value = self.held, unwrapped(key), unwrapped(value)

        def copy() -> None:
            with np.errstate(all="ignore"):
                into[key] = value

        streams.enqueue(copy)

    def fill(self, *args: Any, **kwargs: Any) -> None:
        value = bound("ndarray.fill", args, kwargs).arguments["value"]
        streams.enqueue(lambda: self.held.fill(value))

    def get(self, *args: Any, **kwargs: Any) -> np.ndarray:
        bound("ndarray.get", args, kwargs)
        streams.read("get")
        return self.held.copy()

    def item(self, *args: Any, **kwargs: Any) -> Any:
        bound("ndarray.item", args, kwargs)
        streams.read("item")
        return self.held.item()

    def reshape(self, *args: Any, **kwargs: Any) -> "ndarray":
        bound("ndarray.reshape", args, kwargs)
        if not self.held.flags.c_contiguous:
            streams.finish("reshape that copies")
        return given_back(self.held.reshape(*args, **kwargs), [self])

    def view(self, *args: Any, **kwargs: Any) -> "ndarray":
        dtype = bound("ndarray.view", args, kwargs).arguments["dtype"]
        return ndarray(self.held.view(dtype), self.zone)


ndarray.__module__ = "cupy"


COMPARISONS = ("lt", "le", "gt", "ge", "eq", "ne")
BINARY = ("add", "sub", "mul", "truediv", "floordiv", "pow", "matmul", "mod", "and", "or", "xor", "lshift", "rshift")


def _operator(name: str) -> None:
    function = getattr(operator, f"__{name}__")
    setattr(ndarray, f"__{name}__", lambda *operands: elementwise(function, *operands))
    if name in BINARY:
        setattr(ndarray, f"__r{name}__", lambda a, b: elementwise(function, b, a))


def is_basic(key: Any) -> bool:
    """Whether an index gives a view."""
    keys = key if isinstance(key, tuple) else (key,)
    return all(k is None or k is Ellipsis or isinstance(k, int | slice | np.integer) for k in keys)


def elementwise(function: Any, *operands: Any) -> Any:
    streams.finish(function.__name__)
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
    """A result of NumPy's as an array of the device: a view of an operand, or new memory."""
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
    streams.refuse_capture("an allocation")
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


class Device:
    """The one device."""

    attributes = {"MultiProcessorCount": 3, "MaxSharedMemoryPerBlockOptin": 99 << 10}  # noqa: RUF012 -- as in CuPy
    compute_capability = "90"

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.id = int(bound("cuda.Device", args, kwargs).arguments.get("device") or 0)
        assert self.id == 0

    def __enter__(self) -> "Device":
        return self

    def __exit__(self, *_: object) -> None:
        pass

    @property
    def mem_info(self) -> tuple[int, int]:
        """Free and all bytes."""
        return streams.STATE.memory - streams.POOL.total, streams.STATE.memory

    def use(self) -> None:
        pass

    def synchronize(self) -> None:
        streams.synchronize()


DEVICE = Device()
