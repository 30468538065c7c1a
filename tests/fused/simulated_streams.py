"""Streams, events, graphs, pinned memory and the pool of the simulated device.

Work on a stream is done at once, or, on the streams that `STATE.late` names ("null", "others"), only when somebody
waits for it: then a copy that nobody waits for is seen as what was there before, and memory that is written again too
early as what came after. While a stream captures, its work is kept for a graph and not done; what reads the device,
or makes an array, raises.
"""

import ctypes
import itertools
import weakref
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np

STATE = SimpleNamespace(late=frozenset(), reads=0, launched=0, memory=1 << 30)
Work = Callable[[], None]
EVERY: "weakref.WeakSet[Stream]" = weakref.WeakSet()


class Stream:
    """A queue of work; `null` is CuPy's default stream."""

    null: "Stream"
    _numbers = itertools.count(0)

    def __init__(
        self, null: bool = False, non_blocking: bool = False, ptds: bool = False, priority: Any = None
    ) -> None:
        assert not ptds
        assert priority is None
        self.is_null, self.non_blocking, self.ptr = null, non_blocking, 0x51AB * next(Stream._numbers)
        self.queue: list[Work] = []
        self.done = 0  # how many pieces of work, of all that ever came, are done
        self.captured: list[Work] | None = None
        EVERY.add(self)

    def __enter__(self) -> "Stream":
        ACTIVE.append(self)
        return self

    def __exit__(self, *_: object) -> None:
        assert ACTIVE.pop() is self

    def add(self, work: Work) -> None:
        """One more piece of work."""
        if self.captured is not None:
            self.captured.append(work)
            return
        self.queue.append(work)
        if ("null" if self.is_null else "others") not in STATE.late:
            self.wait()

    def wait(self, until: int | None = None) -> None:
        """Do all work, or that which came before."""
        while self.queue and (until is None or self.done < until):
            self.done += 1
            self.queue.pop(0)()

    def synchronize(self) -> None:
        refuse_capture("synchronize", self)
        self.wait()

    def record(self, event: "Event | None" = None) -> "Event":
        event = event or Event()
        event.record(self)
        return event

    def wait_event(self, event: "Event") -> None:
        assert self.captured is None, "an event of outside while a stream captures"
        stream, until = event.stream, event.until
        if stream is not None:
            self.add(lambda: stream.wait(until))

    def begin_capture(self, mode: int | None = None) -> None:
        if self.is_null:
            raise RuntimeError("cudaErrorStreamCaptureUnsupported: the null stream cannot capture")
        assert mode is None
        assert self.captured is None
        self.captured = []

    def end_capture(self) -> "Graph":
        assert self.captured is not None, "end_capture without begin_capture"
        graph, self.captured = Graph(self.captured), None
        return graph

    def is_capturing(self) -> bool:
        return self.captured is not None


Stream.null = Stream(null=True)
ACTIVE: list[Stream] = [Stream.null]


def current(device_id: int = -1) -> Stream:
    assert device_id in (-1, 0)
    return ACTIVE[-1]


def enqueue(work: Work) -> None:
    """Work of the current stream."""
    current().add(work)


def refuse_capture(what: str, stream: Stream | None = None) -> None:
    if (stream or current()).captured is not None:
        raise RuntimeError(f"{what}: the current stream is capturing, so this is disallowed")


def finish(what: str) -> None:
    """Does the work of the current stream before the host reads memory or NumPy computes on it."""
    refuse_capture(what)
    current().wait()


def read(what: str) -> None:
    """The host reads the device, and waits for it."""
    finish(what)
    STATE.reads += 1


def synchronize() -> None:
    """Everything on the device is done."""
    refuse_capture("synchronize")
    for stream in list(EVERY):
        stream.wait()


class Graph:
    """Captured work, done as one."""

    def __init__(self, nodes: list[Work]) -> None:
        self.nodes = nodes

    def launch(self, stream: Stream | None = None) -> None:
        (stream or current()).add(self._run)

    def upload(self, stream: Stream | None = None) -> None:
        pass

    def _run(self) -> None:
        STATE.launched += 1
        for node in self.nodes:
            node()


class Event:
    """A place in a stream; the clock of the simulated device counts pieces of work, a millisecond each."""

    def __init__(self, block: bool = False, disable_timing: bool = False, interprocess: bool = False) -> None:
        assert not interprocess
        self.block, self.disable_timing = block, disable_timing
        self.stream: Stream | None = None
        self.until = 0

    def record(self, stream: Stream | None = None) -> None:
        self.stream = stream or current()
        refuse_capture("record", self.stream)
        self.until = self.stream.done + len(self.stream.queue)

    @property
    def done(self) -> bool:
        return self.stream is None or self.stream.done >= self.until

    def synchronize(self) -> None:
        refuse_capture("synchronize")
        if self.stream is not None:
            self.stream.wait(self.until)


def elapsed(start_event: Event, end_event: Event) -> float:
    assert start_event.done
    assert end_event.done
    assert not start_event.disable_timing
    assert not end_event.disable_timing
    return float(end_event.until - start_event.until)


def pinned(size: int) -> Any:
    """Memory of the host that a stream copies from, full of NaN; NumPy sees it through the buffer protocol."""
    kind = type("PinnedMemoryPointer", (ctypes.c_uint8 * size,), {"ptr": property(ctypes.addressof), "size": size})
    held = kind()
    ctypes.memset(held, 0xFF, size)
    return held


class MemoryPointer:
    """The address of an array, and copies to it."""

    def __init__(self, held: np.ndarray) -> None:
        self.ptr, self._held = held.ctypes.data, held

    def copy_from_host_async(self, mem: Any, size: int, stream: Stream | None = None) -> None:
        source = mem.value if isinstance(mem, ctypes.c_void_p) else int(mem)
        self._copy(source, size, stream)

    def copy_from_device_async(self, src: "MemoryPointer", size: int, stream: Stream | None = None) -> None:
        self._copy(src.ptr, size, stream)

    def _copy(self, source: int, size: int, stream: Stream | None) -> None:
        assert 0 <= size <= self._held.nbytes
        (stream or current()).add(lambda: ctypes.memmove(self.ptr, source, size) and None)


class Pool:
    """The counters of CuPy's memory pool; what is freed stays with it."""

    def __init__(self) -> None:
        self.used = self.total = self.mallocs = 0

    def take(self, size: int) -> None:
        self.mallocs += 1
        self.used += size
        self.total = max(self.total, self.used)

    def give(self, size: int) -> None:
        self.used -= size

    def free_all_blocks(self) -> None:
        self.total = self.used

    def used_bytes(self) -> int:
        return self.used

    def total_bytes(self) -> int:
        return self.total


POOL = Pool()


def forget() -> None:
    """As on a new device."""
    del ACTIVE[1:]
    Stream.null.wait()
    Stream.null.captured = None
    STATE.late, STATE.reads, STATE.launched, STATE.memory = frozenset(), 0, 0, 1 << 30
