"""Measurements on the device: time between events, memory in use, cache size."""

from collections.abc import Callable
from typing import Any

from ..._typing import Array
from . import _load


def seconds(work: Callable[[], object]) -> float:
    """How long the device took for what `work` puts on CuPy's current stream, between two events there; waits for it.

    What the host does in the meantime counts only where the device has to wait for it.
    """
    cuda = _load.cupy().cuda
    stream = cuda.get_current_stream()
    began, ended = cuda.Event(), cuda.Event()
    began.record(stream)
    work()
    ended.record(stream)
    ended.synchronize()
    return float(cuda.get_elapsed_time(began, ended)) / 1e3


def copy(source: Array, target: Array) -> None:
    """Copy all bytes of one contiguous array to another, on CuPy's current stream."""
    target.data.copy_from_device_async(source.data, source.nbytes, _load.cupy().cuda.get_current_stream())


def held_bytes() -> int:
    """Bytes of arrays in CuPy's memory pool."""
    return int(_load.cupy().get_default_memory_pool().used_bytes())


def cache_bytes(device: Any) -> int | None:
    """Bytes of a device's L2 cache; None if CuPy does not say."""
    size = device.attributes.get("L2CacheSize")
    return None if size is None else int(size)
