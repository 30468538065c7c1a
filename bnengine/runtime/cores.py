"""How many threads kernels use by default: `BNENGINE_NUM_THREADS`, or the cores that this process may use."""

import os
from pathlib import Path

from ..errors import InputError

VARIABLE = "BNENGINE_NUM_THREADS"
MOST = 256


def default() -> int:
    """What `BNENGINE_NUM_THREADS` says, or else the cores that this process may use."""
    text = os.environ.get(VARIABLE, "").strip()
    if not text:
        return min(cores(), MOST)
    try:
        return checked(int(text), VARIABLE)
    except ValueError:
        raise InputError(
            f"{VARIABLE}: {text!r} is not a number of threads from 1 to {MOST}; unset it or say one"
        ) from None


def checked(n: int, where: str) -> int:
    if isinstance(n, bool) or not isinstance(n, int) or not 1 <= n <= MOST:
        raise InputError(f"{where}: {n!r} is not a number of threads from 1 to {MOST}")
    return n


def cores(proc: Path = Path("/proc/self"), root: Path = Path("/sys/fs/cgroup")) -> int:
    """The cores that this process may use: its affinity, and the limits of its control groups rounded up."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    shares = [quota / period for quota, period in _limits(proc, root) if quota > 0 and period > 0]
    return max(1, min([allowed, *(-int(-share // 1) for share in shares)]))


def _limits(proc: Path, root: Path) -> list[tuple[int, int]]:
    """(quota, period) in microseconds of every control group that this process is in, both versions."""
    found = list[tuple[int, int]]()
    for line in _read(proc / "cgroup").splitlines():
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if controllers == "":
            for folder in (*_upwards(root, path), *_upwards(root / "unified", path)):
                found += _pair(_read(folder / "cpu.max").split())
        elif "cpu" in controllers.split(","):
            for mount in dict.fromkeys((controllers, "cpu")):
                for folder in _upwards(root / mount, path):
                    quota, period = _read(folder / "cpu.cfs_quota_us"), _read(folder / "cpu.cfs_period_us")
                    found += _pair([quota.strip(), period.strip()])
    return found


def _upwards(mount: Path, path: str) -> list[Path]:
    """The group's folder and those above it: each may limit. In a container the mount itself is the group's."""
    folder = mount / path.lstrip("/")
    return [folder, *(parent for parent in folder.parents if parent == mount or mount in parent.parents)]


def _pair(words: list[str]) -> list[tuple[int, int]]:
    """Two numbers, or nothing: "max", -1 and a missing file are no limit."""
    return [(int(words[0]), int(words[1]))] if len(words) == 2 and all(w.isdecimal() for w in words) else []


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii")
    except (OSError, UnicodeDecodeError):
        return ""
