"""How a comparison is timed: in turns, many rounds, medians and quartiles, never past the deadline."""

import signal
import statistics
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from time import perf_counter
from typing import Any, NamedTuple

Clock = Callable[[], float]


class Spread(NamedTuple):
    """The median of so many rounds, and the quartiles around it."""

    median: float
    low: float
    high: float
    rounds: int

    def to_json(self) -> dict[str, float]:
        """As JSON values."""
        return dict(self._asdict())


def spread(values: Sequence[float]) -> Spread:
    """Median and quartiles (inclusive, linearly interpolated) of one value or more."""
    if len(values) == 1:
        return Spread(values[0], values[0], values[0], 1)
    low, median, high = statistics.quantiles(values, n=4, method="inclusive")
    return Spread(median, low, high, len(values))


def ratios(ours: Sequence[float], theirs: Sequence[float]) -> Spread:
    """theirs / ours, round by round: what slows the machine for a while slows both. Above 1: ours is faster."""
    return spread([b / a for a, b in zip(ours, theirs, strict=True)])


class Deadline:
    """When everything is to be done; without `seconds` there is no end. A part of it is a Deadline too."""

    def __init__(self, seconds: float | None, clock: Clock = perf_counter) -> None:
        self.clock = clock
        self.end = None if seconds is None else clock() + seconds

    def left(self) -> float:
        """Seconds that are left, infinity without an end, never below 0."""
        return float("inf") if self.end is None else max(0.0, self.end - self.clock())

    @property
    def over(self) -> bool:
        """Whether no time is left."""
        return self.left() == 0.0

    def part(self, share: float, most: float = float("inf")) -> "Deadline":
        """So much of the time that is left, and `most` seconds at most."""
        seconds = min(self.left() * share, most)
        return Deadline(None if seconds == float("inf") else seconds, self.clock)


class TimeLimit(Exception):
    """Something took longer than it was given."""


@contextmanager
def limited(seconds: float) -> Iterator[None]:
    """Raise TimeLimit inside after so many seconds: in the main thread, where the system has such an alarm."""
    able = hasattr(signal, "setitimer") and threading.current_thread() is threading.main_thread()
    if not able or seconds == float("inf"):
        yield
        return

    def ring(_signal: int, _frame: Any) -> None:
        raise TimeLimit(f"not ready within {seconds:.0f} s")

    before = signal.signal(signal.SIGALRM, ring)
    try:
        signal.setitimer(signal.ITIMER_REAL, max(seconds, 1e-3))
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


class Rounds(NamedTuple):
    """Seconds of each contender in each round that all of them finished, and who dropped out, with the reason."""

    seconds: dict[str, list[float]]
    failed: dict[str, str]


def in_turns(contenders: Mapping[str, Callable[[], float]], rounds: int, deadline: Deadline) -> Rounds:
    """Call each contender once a round, another one first each time; at least one round, and none after the deadline.

    A contender that raises drops out with the first line of its error; the others go on. The rounds of all that stay
    are the same ones, so that they can be compared one by one.
    """
    running, failed = dict(contenders), dict[str, str]()
    seconds: dict[str, list[float]] = {name: [] for name in running}
    for i in range(rounds):
        if i and deadline.over:
            break
        names = list(running)
        for name in names[i % len(names) :] + names[: i % len(names)] if names else []:
            try:
                seconds[name].append(running[name]())
            except Exception as error:  # a peer's own, of whatever kind: a row of the report, and no end of it
                failed[name] = first_line(error)
                del running[name], seconds[name]
    return Rounds(seconds, failed)


def first_line(error: BaseException) -> str:
    """The class and the first line of an error, as a row shows it."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0].strip()}" if lines else type(error).__name__


def repetitions(once: float, target: float, least: int, most: int) -> int:
    """How many calls of `once` seconds fill `target` seconds, within [least, most]."""
    return max(least, min(most, round(target / once) if once > 0 else most))
