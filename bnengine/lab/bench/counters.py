"""Whether other programs took the cores while something was timed."""

import os
from pathlib import Path
from typing import NamedTuple

STAT = Path("/proc/stat")
TICKS = os.sysconf("SC_CLK_TCK") if hasattr(os, "sysconf") else 100  # per second, of the counters in /proc/stat
BUSY = (1, 2, 3, 6, 7, 8)  # words of its first line: user, nice, system, hard and soft interrupts, stolen
ALLOWED_S, SHARE = 0.02, 0.04  # two ticks, and a share of one core's time
SWITCHES = 50  # involuntary, per second and thread, where the system has no counters


class Cores(NamedTuple):
    """Seconds that all cores together were busy since the system began, and how many cores there are."""

    busy: float
    number: int


def read(path: Path = STAT) -> Cores | None:
    """Read the system's counters; None where it has none."""
    try:
        cores = [line.split() for line in path.read_text(encoding="ascii").splitlines() if line.startswith("cpu")]
    except (OSError, UnicodeDecodeError):
        return None
    return Cores(sum(int(cores[0][i]) for i in BUSY) / TICKS, len(cores) - 1) if len(cores) > 1 else None


def taken(before: Cores | None, after: Cores | None, own: float, elapsed: float, threads: int) -> float | None:
    """Return the seconds of cores that others took from our `threads`, who had `own`; None where it is unknown.

    Others may use the cores that our threads leave free.
    """
    if before is None or after is None:
        return None
    spare = max(0, after.number - threads) * elapsed
    return max(0.0, after.busy - before.busy - own - spare)


def disturbed(lost: float | None, switches: int, elapsed: float, threads: int) -> bool:
    """Whether others took more than noise: by the seconds lost, else by involuntary switches."""
    if lost is not None:
        return lost > ALLOWED_S + SHARE * elapsed
    return switches > 5 + SWITCHES * elapsed * threads
