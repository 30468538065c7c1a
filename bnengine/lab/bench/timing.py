"""Rounds, medians, quartiles and deadlines of a comparison."""

import signal
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from math import inf
from time import perf_counter
from types import FrameType
from typing import NamedTuple

import numpy as np

Clock = Callable[[], float]


class Spread(NamedTuple):
    """Median and quartiles of the rounds."""

    median: float
    low: float
    high: float
    rounds: int


def spread(values: Sequence[float]) -> Spread:
    """Median and quartiles (inclusive, linearly interpolated) of one value or more."""
    low, median, high = np.quantile(values, (0.25, 0.5, 0.75)).tolist()
    return Spread(median, low, high, len(values))


def ratios(ours: Sequence[float], theirs: Sequence[float]) -> Spread:
    """The spread of theirs / ours, taken round by round: what slows the machine for a while slows both."""
    return spread([b / a for a, b in zip(ours, theirs, strict=True)])


class Deadline:
    """The end of a run or of a part of it, by default never."""

    def __init__(self, seconds: float = inf, clock: Clock = perf_counter) -> None:
        self.clock, self.end = clock, clock() + seconds

    def left(self) -> float:
        """Return the seconds left, never below 0."""
        return max(0.0, self.end - self.clock())

    @property
    def over(self) -> bool:
        """Whether no time is left."""
        return self.left() == 0.0

    def part(self, share: float, most: float = inf) -> "Deadline":
        """Return the deadline of a part that may take this share of the time left, and `most` seconds at most."""
        return Deadline(min(self.left() * share, most), self.clock)


class TimeLimit(Exception):
    """Work exceeded its time."""


@contextmanager
def limited(seconds: float) -> Iterator[None]:
    """Raise TimeLimit inside after `seconds`, in the main thread of systems that have SIGALRM; elsewhere do nothing."""
    able = hasattr(signal, "setitimer") and threading.current_thread() is threading.main_thread()
    if not able or seconds == inf:
        yield
        return

    def ring(_signal: int, frame: FrameType | None) -> None:
        if not _cleans_up(frame):
            raise TimeLimit(f"not ready within {seconds:.0f} s")

    before = signal.signal(signal.SIGALRM, ring)
    try:
        signal.setitimer(signal.ITIMER_REAL, max(seconds, 1e-3), 0.05)
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _cleans_up(frame: FrameType | None) -> bool:
    """Whether a destructor or the callback of a weak reference runs, from which Python lets no exception out."""
    while frame is not None:
        if frame.f_code.co_name == "__del__" or frame.f_globals.get("__name__") in ("weakref", "_weakrefset"):
            return True
        frame = frame.f_back
    return False


def in_turns(
    contenders: Mapping[str, Callable[[], float]], rounds: int, deadline: Deadline
) -> tuple[dict[str, list[float]], dict[str, str]]:
    """Call each contender once per round, starting with another one each time.

    At least one round runs; no other begins after the deadline. A contender that raises drops out with the first line
    of its error, so that all that remain have the same rounds.

    Returns:
        Seconds of each contender in each round, and why others dropped out.
    """
    seconds, failed = {name: list[float]() for name in contenders}, dict[str, str]()
    for i in range(rounds):
        if i and deadline.over:
            break
        names = list(seconds)
        first = i % max(1, len(names))
        for name in names[first:] + names[:first]:
            try:
                seconds[name].append(contenders[name]())
            except Exception as error:  # another library's error makes its row void; the others go on
                failed[name] = first_line(error)
                del seconds[name]
    return seconds, failed


def first_line(error: BaseException) -> str:
    """Return the class and the first line of an error, as a row shows it."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0].strip()}" if lines else type(error).__name__


def repetitions(once: float, target: float, most: int) -> int:
    """Return how many calls of `once` seconds fill `target` seconds, from 1 to `most`."""
    return max(1, min(most, round(target / once) if once > 0 else most))
