"""A device to launch on where there is none: what the launchers call of CuPy, on NumPy's memory, kernels under g++.

cublasLt is the model of tests/fused/cublaslt_model.py. Every array is between guard zones at an address that is a
multiple of 256, as in CuPy's pool, and begins full of NaN. A call whose arguments do not fit CuPy 14.2's signature
(cupy_14_2_signatures.json) is a TypeError, as is an array where the host's memory was meant. `installed(monkeypatch)`
puts it in CuPy's place.
"""

import itertools
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType, SimpleNamespace
from typing import Any

import array_api_compat
import numpy as np
from array_api_compat import numpy as host

from bnengine.arrays.backend import Backend
from bnengine.fused.cuda import _load, cublaslt, cublaslt_api, update
from tests.fused import simulated_streams as streams
from tests.fused.cublaslt_model import Model
from tests.fused.signatures import LISTED, bound
from tests.fused.simulated_arrays import (
    DEVICE,
    Device,
    fresh,
    given_back,
    ndarray,
    off_device,
    on_device,
    unwrapped,
)
from tests.fused.simulated_kernels import STATE, RawKernel, RawModule

__all__ = ["CUPY", "STATE", "RawKernel", "backend", "bound", "forget", "fresh", "installed", "off_device", "on_device"]


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
    if streams.current().captured is not None:
        raise NotImplementedError("calling cuBLAS API during stream capture is currently unsupported")

    def multiply() -> None:
        with np.errstate(all="ignore"):
            np.matmul(a.held, b.held, out=out.held)
        out.zone.check("matmul")

    streams.enqueue(multiply)
    return out


def checked(name: str, function: Any) -> Any:
    """A function that refuses what CuPy's would."""

    def call(*args: Any, **kwargs: Any) -> Any:
        bound(name, args, kwargs)
        return function(*args, **kwargs)

    return call


CUPY = ModuleType("cupy")
CUPY.__dict__.update(
    __version__=LISTED["version"], ndarray=ndarray, RawModule=RawModule, empty=empty, zeros=zeros, asarray=asarray,
    matmul=matmul, get_default_memory_pool=lambda: streams.POOL,
    cuda=SimpleNamespace(
        Device=Device, Stream=streams.Stream, Event=streams.Event, Graph=streams.Graph,
        get_current_stream=checked("cuda.get_current_stream", streams.current),
        get_elapsed_time=checked("cuda.get_elapsed_time", streams.elapsed),
        alloc_pinned_memory=checked("cuda.alloc_pinned_memory", streams.pinned),
    ),
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
            streams.finish(name)
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


@contextmanager
def counted_mallocs() -> Iterator[Any]:
    """Inside, the given object's `count` counts allocations."""
    before = streams.POOL.mallocs
    yield (counted := SimpleNamespace(count=0))
    counted.count = streams.POOL.mallocs - before


def installed(monkeypatch: Any) -> None:
    """Until the test ends, `import cupy` gives this module."""
    monkeypatch.setitem(sys.modules, "cupy", CUPY)
    monkeypatch.setitem(sys.modules, "array_api_compat.cupy", NAMESPACE)
    monkeypatch.setattr(array_api_compat, "cupy", NAMESPACE, raising=False)
    STATE.model = Model(enqueue=streams.enqueue)
    monkeypatch.setattr(cublaslt_api, "load", lambda: cublaslt_api.Library(STATE.model, "the model"))
    monkeypatch.setattr(_load, "_arrivals", {})
    monkeypatch.setattr(_load, "_workspaces", {})
    monkeypatch.setattr(update, "_uploaded", {})
    STATE.schedule, STATE.flush, STATE.launches = "forward", False, []
    forget()


def forget() -> None:
    """No kernel and no plan is left over, neither from here nor for whoever comes next."""
    asked = _load.refusal, _load.function, _load.multiprocessors, _load.shared_memory
    for cached in (*asked, cublaslt.plan_of, cublaslt._handle):
        cached.cache_clear()
    streams.forget()
