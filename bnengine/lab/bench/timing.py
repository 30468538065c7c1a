"""Rounds, medians, quartiles and deadlines of a comparison."""

import signal
import statistics
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from time import perf_counter
from typing import Any, NamedTuple

Clock = Callable[[], float]


class Spread(NamedTuple):
    """Median and quartiles of the rounds."""

    median: float
    low: float
    high: float
    rounds: int


def spread(values: Sequence[float]) -> Spread:
    """Median and quartiles (inclusive, linearly interpolated) of one value or more."""
    if len(values) == 1:
        return Spread(values[0], values[0], values[0], 1)
    low, median, high = statistics.quantiles(values, n=4, method="inclusive")
    return Spread(median, low, high, len(values))


def ratios(ours: Sequence[float], theirs: Sequence[float]) -> Spread:
    """The spread of theirs / ours, taken round by round: what slows the machine for a while slows both."""
    return spread([b / a for a, b in zip(ours, theirs, strict=True)])


class Deadline:
    """The end of a run or of a part of it; without `seconds` there is no end."""

    def __init__(self, seconds: float | None, clock: Clock = perf_counter) -> None:
        self.clock = clock
        self.end = None if seconds is None else clock() + seconds

    def left(self) -> float:
        """Return the seconds left: infinity without an end, never below 0."""
        return float("inf") if self.end is None else max(0.0, self.end - self.clock())

    @property
    def over(self) -> bool:
        """Whether no time is left."""
        return self.left() == 0.0

    def part(self, share: float, most: float = float("inf")) -> "Deadline":
        """Return the deadline of a part that may take this share of the time left, and `most` seconds at most."""
        seconds = min(self.left() * share, most)
        return Deadline(None if seconds == float("inf") else seconds, self.clock)


class TimeLimit(Exception):
    """Work exceeded its time."""


@contextmanager
def limited(seconds: float) -> Iterator[None]:
    """Raise TimeLimit inside after `seconds`, in the main thread of systems that have SIGALRM; elsewhere do nothing."""
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
    """Seconds of each contender in each round that all of them finished; why others dropped out."""

    seconds: dict[str, list[float]]
    failed: dict[str, str]


def in_turns(contenders: Mapping[str, Callable[[], float]], rounds: int, deadline: Deadline) -> Rounds:
    """Call each contender once per round, starting with another one each time.

    At least one round runs; no other begins after the deadline. A contender that raises drops out with the first line
    of its error, so that all that remain have the same rounds.
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
            except Exception as error:  # another library's error makes its row void; the others go on
                failed[name] = first_line(error)
                del running[name], seconds[name]
    return Rounds(seconds, failed)


def first_line(error: BaseException) -> str:
    """Return the class and the first line of an error, as a row shows it."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0].strip()}" if lines else type(error).__name__


def repetitions(once: float, target: float, most: int) -> int:
    """Return how many calls of `once` seconds fill `target` seconds, from 1 to `most`."""
    return max(1, min(most, round(target / once) if once > 0 else most))
