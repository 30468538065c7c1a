"""Where a recorded step spends its time: group by group, launch by launch, and by kind of kernel."""

import time
from collections.abc import Callable
from statistics import median
from typing import NamedTuple

from bnengine.errors import BackendError, InputError
from bnengine.fused import threads
from bnengine.fused.cpu.native import replayer
from bnengine.runtime.plan import CannotReplay, Launch, Plan, name_of


class GroupTime(NamedTuple):
    """A group of launches, of whose `blocks` threads take one after the other: seconds on each of its kernels."""

    kernels: tuple[str, ...]
    blocks: int
    busy: tuple[float, ...]


class StageTime(NamedTuple):
    """Groups that run at once, and seconds from the stage's beginning to its end.

    Those of kernels are of all threads together: where they add up to less than the threads times `seconds`, threads
    waited, or handed blocks out.
    """

    groups: tuple[GroupTime, ...]
    seconds: float


class KindTime(NamedTuple):
    """All launches of one kernel: seconds on all threads together, and their share of what the threads had."""

    kernel: str
    launches: int
    seconds: float
    share: float


def profile(plan: Plan, replays: int = 100, before: Callable[[], object] | None = None) -> list[StageTime]:
    """Replay a plan `replays` times, and read the clock at every block of every launch: medians, stage by stage.

    Each replay is a real step with all that it changes. `before` is called ahead of each: a step that gathers its rows
    must be set back there to where it was, or it would run out of data. A look takes some 20 ns. Raises InputError for
    less than one replay, and BackendError for a plan that is not one native call.
    """
    if replays < 1:
        raise InputError(f"profile: replays {replays!r} is less than 1")
    try:
        native = replayer(plan)
    except CannotReplay as reason:
        raise BackendError(f"profile: {reason}") from reason
    runs, began = list[tuple[list[int], list[int]]](), time.perf_counter()
    for _ in range(replays):
        if before is not None:
            before()
        runs.append(native.timed())
    second = (runs[-1][1][-1] - runs[0][1][0]) / (time.perf_counter() - began)
    busy = iter([median(ticks) / second for ticks in zip(*(busy for busy, _ in runs), strict=True)])
    blocks, ends, times = iter(native.blocks), 0, list[StageTime]()
    for stage in native.stages:
        groups = tuple(
            GroupTime(tuple(map(_name, group)), next(blocks), tuple(next(busy) for _ in group)) for group in stage
        )
        begins, ends = ends, ends + len(stage)
        times.append(StageTime(groups, median(_last(ended, begins, ends) for _, ended in runs) / second))
    return times


def _name(launch: Launch) -> str:
    return name_of(launch.kernel)


def _last(ended: list[int], begins: int, ends: int) -> int:
    """Ticks of a stage: from the last end before its first group to the last end in it."""
    return max(ended[begins + 1 : ends + 1]) - max(ended[: begins + 1])


def by_kind(times: list[StageTime]) -> list[KindTime]:
    """Summed up by kernel, the longest first."""
    kinds = dict[str, list[float]]()
    for group in (group for stage in times for group in stage.groups):
        for name, seconds in zip(group.kernels, group.busy, strict=True):
            kinds.setdefault(name, []).append(seconds)
    all_ = threads.get() * sum(stage.seconds for stage in times)
    found = [KindTime(name, len(each), sum(each), sum(each) / all_) for name, each in kinds.items()]
    return sorted(found, key=lambda kind: -kind.seconds)


def table(times: list[StageTime]) -> str:
    """By kind of kernel, a line each, and what threads spent otherwise: waiting, or taking blocks."""
    kinds, all_ = by_kind(times), threads.get() * sum(stage.seconds for stage in times)
    rest = all_ - sum(kind.seconds for kind in kinds)
    lines = [f"{'kernel':<40} launches        us  share"]
    for name, launches, seconds, share in [*kinds, KindTime("(between blocks)", len(times), rest, rest / all_)]:
        lines.append(f"{name:<40} {launches:8d} {seconds * 1e6:9.2f} {share:6.1%}")
    return "\n".join(lines)
