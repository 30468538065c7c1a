"""Whether other programs took the cores while something was timed: by the system's counters, or by our own switches."""

import os
from pathlib import Path
from typing import NamedTuple

STAT = Path("/proc/stat")
TICKS = os.sysconf("SC_CLK_TCK") if hasattr(os, "sysconf") else 100  # a second, of the counters in /proc/stat
BUSY = (0, 1, 2, 5, 6, 7)  # user, nice, system, interrupts hard and soft, and what a hypervisor stole
ALLOWED, SHARE = 0.02, 0.04  # seconds, two ticks; and a share of the time, of one core
SWITCHES = 50  # a second and thread, where only these are known


class Cores(NamedTuple):
    """Seconds that all cores together were busy since the system began, and how many cores there are."""

    busy: float
    number: int


def read(path: Path = STAT) -> Cores | None:
    """The counters of the moment; None where the system has none."""
    try:
        lines = path.read_text(encoding="ascii").splitlines()
    except (OSError, UnicodeDecodeError):
        return None
    cores = [line.split() for line in lines if line.startswith("cpu")]
    if len(cores) < 2:
        return None
    total = [int(word) for word in cores[0][1:]]
    return Cores(sum(total[i] for i in BUSY if i < len(total)) / TICKS, len(cores) - 1)


def taken(before: Cores | None, after: Cores | None, own: float, elapsed: float, threads: int) -> float | None:
    """Seconds of cores that others took from `threads` of ours; None where it is not known.

    `own`: seconds of cores that we had. What others do on cores that we leave free takes nothing from us.
    """
    if before is None or after is None:
        return None
    spare = max(0, after.number - threads) * elapsed
    return max(0.0, after.busy - before.busy - own - spare)


def disturbed(lost: float | None, switches: int | None, elapsed: float, threads: int) -> bool:
    """Whether others took more than noise: by what was lost to them, else by how often we were put aside."""
    if lost is not None:
        return lost > ALLOWED + SHARE * elapsed
    return switches is not None and switches > 5 + SWITCHES * elapsed * threads
