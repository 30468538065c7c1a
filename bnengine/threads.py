"""How many threads the native kernels take: by default as many as the cores that this process may use.

`BNENGINE_NUM_THREADS` in the environment says another number; `set(n)` changes it at any time. No result depends on it.
A step that one thread is sooner through with runs on the caller's alone, which is tried from time to time.
While the threads run, the OpenBLAS of NumPy's wheels has its jobs run on them too, so that steps and `np.matmul` do not
fight over the cores; `release()` ends that, and `BNENGINE_NUMPY_BLAS=apart` never begins it.
"""

import os
from pathlib import Path

from . import fused
from .errors import BackendError, InputError

VARIABLE = "BNENGINE_NUM_THREADS"
MOST = 256


def get() -> int:
    """The number of threads that kernels run on, the caller's own among them; 1 where there are no native kernels."""
    native = fused.native()
    return 1 if native.available() else int(native.library().bnengine_threads())


def set(n: int) -> None:
    """Let kernels run on n threads from now on, 1 to 256; a step that runs in another thread is waited for.

    Raises InputError for another number, and BackendError where there are no native kernels, unless n is 1.
    """
    _checked(n, "threads.set")
    native = fused.native()
    if reason := native.available():
        if n != 1:
            raise BackendError(f"threads.set: {n} threads have nothing to run: {reason}")
        return
    native.done(native.library().bnengine_set_threads(n), "threads.set")


def release() -> None:
    """Stop the threads, and leave NumPy's BLAS to its own; the next step that has use for them starts them again."""
    native = fused.native()
    if native.available() is None:
        native.done(native.library().bnengine_release(), "threads.release")


def numpy_blas() -> str:
    """What NumPy multiplies with, and whether its jobs run on these threads; if not, why.

    Raises InputError where BNENGINE_NUMPY_BLAS is neither shared nor apart.
    """
    return str(fused.numpy_blas().described(0 if fused.native().available() else get()))


def default() -> int:
    """What `BNENGINE_NUM_THREADS` says, or else the cores that this process may use."""
    text = os.environ.get(VARIABLE, "").strip()
    if not text:
        return min(cores(), MOST)
    try:
        return _checked(int(text), VARIABLE)
    except ValueError:
        raise InputError(
            f"{VARIABLE}: {text!r} is not a number of threads from 1 to {MOST}; unset it or say one"
        ) from None


def _checked(n: int, where: str) -> int:
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
