"""Native kernels as a launch's kernel, one at a time or a whole recorded step in one call: the same bits."""

import ctypes
import functools
import math
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from ..._typing import Array
from ...errors import InputError
from ...runtime.plan import CannotReplay, Launch, Plan, name_of, view_of
from . import _load

CALL = 20_000_000  # nanoseconds that many steps in one call take, or a little more: the longest wait for Ctrl-C


class Packed(NamedTuple):
    """What a kernel gets: addresses of the arrays, the scalars by their kind, each in the order of the launch."""

    arrays: list[int | None]
    integers: list[int]
    reals: list[float]

    @property
    def counts(self) -> tuple[int, int, int]:
        """How many there are of each."""
        return len(self.arrays), len(self.integers), len(self.reals)


@dataclass(frozen=True, slots=True)
class NativeKernel:
    """A kernel of kernels/cpu by its name, and how its launch is cut: called with arrays and scalars, it runs at once.

    `width`: the columns, rows or elements that blocks divide; it is that of the launch, or where that has no split what
    the kernel counts, such as chunks of a sum: the launch is then alone in its group.
    `unit`: a block begins at a multiple of it. `blocks`: how many there are at most, by the shape and never by the
    number of threads. `scratch`: bytes of working memory that each thread needs. No result depends on unit or
    blocks.
    """

    name: str
    width: int = 1
    unit: int = 1
    blocks: int = 1
    scratch: int = 0

    def __post_init__(self) -> None:
        if self.width < 0 or self.unit < 1 or self.blocks < 1 or self.scratch < 0:
            figures = f"width {self.width}, unit {self.unit}, blocks {self.blocks}, scratch {self.scratch}"
            raise InputError(f"{self.name}: {figures} cannot be; width and scratch are 0 or more, unit and blocks 1")

    @property
    def __name__(self) -> str:
        return self.name

    def __call__(self, *arguments: Any) -> None:
        """Run it on the pool, as the only launch of its group."""
        packed = _packed(self.name, arguments)
        group, launch = _alone(self, *packed.counts)
        outcome = _load.library().bnengine_launch_now(group, launch, *_vectors(packed), self.scratch)
        _load.done(outcome, self.name)


def replayer(plan: Plan) -> "NativePlan":
    """Return a call that runs the whole plan as one native call; CannotReplay says why there is none.

    The call releases the interpreter's lock and allocates nothing. It holds the plan, and with it the arrays.
    """
    if not plan.launches:
        raise CannotReplay("the plan has no launches")
    for launch in plan.launches:
        if why := _refusal(launch):
            raise CannotReplay(f"{name_of(launch.kernel)} {why}")
    return NativePlan(plan)


def _refusal(launch: Launch) -> str:
    """Why a launch cannot be part of a native plan; "" if it can."""
    if not isinstance(launch.kernel, NativeKernel):
        return "is not a native kernel"
    if launch.scratch:
        return "has scratch arrays; a native kernel gets scratch in bytes"
    if launch.split is not None and launch.width != launch.kernel.width:
        return f"is cut by {launch.kernel.width}, its launch by {launch.width}"
    if any(not x.flags.writeable for x in launch.outputs):
        return "writes to a read-only array"
    return ""


class NativePlan:
    """A plan in the library's memory; runs when called."""

    def __init__(self, plan: Plan) -> None:
        self.plan, self.stages = plan, _stages(plan)
        groups, launches = list[_load.Group](), list[_load.Launch]()
        flat = Packed([], [], [])
        scratch = 0
        for i, members in ((i, members) for stage in self.stages for i, members in enumerate(stage)):
            kernels = [_native(launch) for launch in members]
            groups.append(_group(kernels, waits=i == 0))
            for kernel, launch in zip(kernels, members, strict=True):
                packed = _packed(kernel.name, (*launch.whole, *launch.reads, *launch.writes, *launch.scalars))
                launches.append(_launch(kernel, *packed.counts))
                flat.arrays.extend(packed.arrays)
                flat.integers.extend(packed.integers)
                flat.reals.extend(packed.reals)
                scratch = max(scratch, kernel.scratch)
        outcome, library = ctypes.c_int(), _load.library()
        handle = library.bnengine_plan(
            _vector(_load.Group, groups), len(groups), _vector(_load.Launch, launches), *_vectors(flat), scratch,
            ctypes.byref(outcome),
        )  # fmt: skip
        _load.done(outcome.value, "replayer")
        self._addresses = (ctypes.c_void_p * len(flat.arrays)).from_address(library.bnengine_plan_arrays(handle))
        self.blocks = [group.blocks for group in groups]
        self._handle, self._launches = ctypes.c_void_p(handle), len(launches)
        self._run = functools.partial(library.bnengine_run, self._handle)
        weakref.finalize(self, library.bnengine_plan_free, handle).atexit = False

    def __call__(self) -> None:
        if outcome := self._run():
            _load.done(outcome, "a native plan")

    def many(self, times: int, until: Array) -> int:
        """Run it up to `times` times in one call, and return how often it ran.

        The call ends early after a run that changed the first number of `until`, of int64, or after `CALL` nanoseconds.
        """
        ran = ctypes.c_int64()
        outcome = _load.library().bnengine_run_on(self._handle, times, _address(until), CALL, ctypes.byref(ran))
        _load.done(outcome, "a native plan")
        return ran.value

    def bound(self, *arrays: Array) -> Callable[..., None]:
        """The plan on other memory: called with an array for each of these, it runs there instead, one call at a time.

        They must not overlap, and those given for them must be contiguous, aligned, and of the same shapes and dtypes.
        """
        views, places = [view_of(x) for x in arrays], list[tuple[int, int, int]]()
        for slot, address in enumerate(self._addresses):
            for i, view in enumerate(views):
                if address is not None and view.start <= address < view.stop:
                    places.append((slot, i, address - view.start))
        slots = self._addresses

        def run(*given: Array) -> None:
            addresses = [_address(x) for x in given]
            for slot, i, offset in places:
                slots[slot] = addresses[i] + offset
            self()

        return run

    def timed(self) -> tuple[list[int], list[int]]:
        """Run it with a clock: the ticks of each launch on all threads, and at the beginning and after each group."""
        busy, ended = (ctypes.c_uint64 * self._launches)(), (ctypes.c_uint64 * (len(self.blocks) + 1))()
        _load.done(_load.library().bnengine_run_timed(self._handle, busy, ended), "a native plan")
        return list(busy), list(ended)


def _native(launch: Launch) -> NativeKernel:
    assert isinstance(launch.kernel, NativeKernel)
    return launch.kernel


def _stages(plan: Plan) -> list[list[list[Launch]]]:
    """The stages of the plan, the groups with many blocks first, so that the others fill the gaps.

    Successive stages of one block each become one group, which waits for no other thread.
    """
    stages, alone = list[list[list[Launch]]](), False
    for groups in plan.stages():
        blocks = {id(group): _group([_native(launch) for launch in group]).blocks for group in groups}
        before, alone = alone, max(blocks.values()) == 1
        if not alone:
            stages.append(sorted(groups, key=lambda group: -blocks[id(group)]))
            continue
        if not before:
            stages.append([[]])
        stages[-1][0].extend(launch for group in groups for launch in group)
    return stages


def _group(kernels: Sequence[NativeKernel], *, waits: bool = True) -> _load.Group:
    """How a group is cut: in units that suit each of its kernels, into as many blocks as one of them has at most."""
    unit = math.lcm(*(kernel.unit for kernel in kernels))
    most = max(1, -(-min(kernel.width for kernel in kernels) // unit))
    return _load.Group(unit, min(max(kernel.blocks for kernel in kernels), most), len(kernels), waits)


def _launch(kernel: NativeKernel, arrays: int, integers: int, reals: int) -> _load.Launch:
    return _load.Launch(_load.kernel(kernel.name), kernel.width, arrays, integers, reals)


@functools.lru_cache(4096)
def _alone(kernel: NativeKernel, arrays: int, integers: int, reals: int) -> tuple[Any, Any]:
    """References to a group of one launch, with that many arguments, and to that launch."""
    return ctypes.byref(_group([kernel])), ctypes.byref(_launch(kernel, arrays, integers, reals))


def _address(x: Any) -> int:
    """Where an array begins: from the buffer, where it has one to write to, quicker than from the interface."""
    try:
        return ctypes.addressof(ctypes.c_char.from_buffer(x))
    except (TypeError, ValueError, BufferError):  # read-only, empty, or in another order
        return int(x.__array_interface__["data"][0])


def _packed(name: str, arguments: Sequence[Any]) -> Packed:
    packed = Packed([], [], [])
    arrays, integers, reals = packed
    for argument in arguments:
        kind = type(argument)
        if kind is np.ndarray:
            arrays.append(_address(argument))
        elif argument is None:
            arrays.append(None)
        elif kind is int or kind is bool:
            integers.append(argument)
        elif kind is float:
            reals.append(argument)
        elif not hasattr(argument, "__array_interface__") or isinstance(argument, np.generic):
            raise InputError(f"{name}: {argument!r} is not an array, an int or a float, which kernels take")
        else:
            arrays.append(_address(argument))
    return packed


def _vector(kind: Any, values: Sequence[Any]) -> Any:
    return (kind * len(values))(*values)


def _vectors(packed: Packed) -> tuple[Any, Any, Any]:
    arrays, integers, reals = packed
    return _vector(ctypes.c_void_p, arrays), _vector(ctypes.c_int64, integers), _vector(ctypes.c_double, reals)
