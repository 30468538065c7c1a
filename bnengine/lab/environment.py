"""What a measurement is worth nothing without: processor, commit, versions, and settings that distort it."""

import importlib.metadata
import os
import subprocess
from pathlib import Path

DISTORTING = ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE")  # NumPy's BLAS then runs other kernels than it would choose


def processor() -> str | None:
    """Return the processor's name; None where the system does not report it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), None)


def commit() -> str | None:
    """Return the commit of the checkout that holds this package, with + if files changed; None outside of one."""
    folder = Path(__file__).resolve().parents[2]
    if not (folder / ".git").exists():
        return None
    try:
        head = _git(folder, "rev-parse", "HEAD")
        return f"{head}+" if _git(folder, "status", "--porcelain", "--untracked-files=no") else head
    except (OSError, subprocess.SubprocessError):
        return None


def _git(folder: Path, *arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=folder, capture_output=True, text=True, check=True, timeout=10)
    return done.stdout.strip()


def version(package: str) -> str | None:
    """Return the version of an installed package; None if it is not installed."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def warnings() -> list[str]:
    """Return a sentence for each environment variable that distorts a measurement."""
    return [
        f"{name}={os.environ[name]} is set: NumPy's BLAS may run other kernels than this processor's own; unset it"
        for name in DISTORTING
        if name in os.environ
    ]
