"""The default number of threads of kernels: `BNENGINE_NUM_THREADS`, or the cores that this process may use."""

import os
from pathlib import Path
from typing import Any

from ..validation import integer

VARIABLE = "BNENGINE_NUM_THREADS"
MOST = 256


def default() -> int:
    """Return the number in `BNENGINE_NUM_THREADS`, or by default the cores that this process may use."""
    text = os.environ.get(VARIABLE, "").strip()
    if not text:
        return min(cores(), MOST)
    return checked(int(text) if text.isdecimal() else text, VARIABLE, "Unset it for one thread per core.")


def checked(threads: Any, where: str, cure: str = "") -> int:
    """Return a number of threads as an int; InputError unless it is from 1 to `MOST`."""
    return integer(where, "the number of threads", threads, least=1, most=MOST, cure=cure)


def cores(proc: Path = Path("/proc/self"), root: Path = Path("/sys/fs/cgroup")) -> int:
    """Return the cores that this process may use: its affinity, and the limits of its control groups rounded up."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    shares = [quota / period for quota, period in _limits(proc, root) if quota > 0 and period > 0]
    return max(1, min([allowed, *(-int(-share // 1) for share in shares)]))


def _limits(proc: Path, root: Path) -> list[tuple[int, int]]:
    """Return (quota, period) in microseconds of every control group of this process, both versions."""
    limits = list[tuple[int, int]]()
    for line in _read(proc / "cgroup").splitlines():
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if controllers == "":
            for folder in (*_upwards(root, path), *_upwards(root / "unified", path)):
                limits += _pair(_read(folder / "cpu.max").split())
        elif "cpu" in controllers.split(","):
            for mount in dict.fromkeys((controllers, "cpu")):
                for folder in _upwards(root / mount, path):
                    quota, period = _read(folder / "cpu.cfs_quota_us"), _read(folder / "cpu.cfs_period_us")
                    limits += _pair([quota.strip(), period.strip()])
    return limits


def _upwards(mount: Path, path: str) -> list[Path]:
    """Return the group's folder and those above it: each may limit. In a container the mount itself is the group's."""
    folder = mount / path.lstrip("/")
    return [folder, *(parent for parent in folder.parents if parent == mount or mount in parent.parents)]


def _pair(words: list[str]) -> list[tuple[int, int]]:
    """Return the two numbers; nothing for "max", -1 and a missing file, which are no limit."""
    return [(int(words[0]), int(words[1]))] if len(words) == 2 and all(w.isdecimal() for w in words) else []


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii")
    except (OSError, UnicodeDecodeError):
        return ""
