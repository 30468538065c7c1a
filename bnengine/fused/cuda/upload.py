"""Copies data to the device while it computes: page-locked host memory, a separate stream, two sets of buffers."""

import ctypes
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from ..._typing import Array
from . import _load

ALIGNMENT = 256  # bytes
SETS = 2


class _Set:
    """A block on the host, one on the device, and when each may be written again."""

    def __init__(self) -> None:
        event = _load.cupy().cuda.Event
        self.pinned: Any = None
        self.host = np.empty(0, np.uint8)
        self.device: Any = None
        self.copied, self.consumed = event(disable_timing=True), event(disable_timing=True)

    def reserve(self, size: int) -> None:
        """Blocks of at least `size` bytes."""
        if self.host.size < size:
            self.consumed.synchronize()  # before the old ones are let go
            cupy = _load.cupy()
            self.pinned = cupy.cuda.alloc_pinned_memory(size)
            self.host = np.frombuffer(self.pinned, np.uint8, size)
            self.device = cupy.empty((size,), dtype=np.uint8)
            self.consumed.record(cupy.cuda.get_current_stream())  # which may still work on what lay there before


class Uploads:
    """Copies groups of host arrays to the device one after the other, each while the group before is computed on.

    The host waits here for one thing only: the copy before the last, whose page-locked memory it writes again.
    """

    def __init__(self) -> None:
        self._stream = _load.cupy().cuda.Stream(non_blocking=True)
        self._sets, self._turn = [_Set() for _ in range(SETS)], 0

    @contextmanager
    def __call__(self, arrays: Sequence[np.ndarray]) -> Iterator[list[Array]]:
        """The same arrays on the device, for what is enqueued inside; afterwards their memory is used again."""
        now = self._sets[self._turn]
        self._turn = (self._turn + 1) % SETS
        places, size = _places(arrays)
        now.reserve(size)
        now.copied.synchronize()
        for (a, b), array in zip(places, arrays, strict=True):
            now.host[a:b].view(array.dtype).reshape(array.shape)[...] = array
        self._stream.wait_event(now.consumed)
        now.device.data.copy_from_host_async(ctypes.c_void_p(now.host.ctypes.data), size, self._stream)
        now.copied.record(self._stream)
        current = _load.cupy().cuda.get_current_stream()
        current.wait_event(now.copied)
        try:
            yield [now.device[a:b].view(x.dtype).reshape(x.shape) for (a, b), x in zip(places, arrays, strict=True)]
        finally:
            now.consumed.record(current)


def _places(arrays: Sequence[np.ndarray]) -> tuple[list[tuple[int, int]], int]:
    """The place of each array in a block, and the bytes of the block."""
    places, at = [], 0
    for array in arrays:
        places.append((at, at + array.nbytes))
        at += -(-array.nbytes // ALIGNMENT) * ALIGNMENT
    return places, max(at, 1)
