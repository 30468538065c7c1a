"""Compiles the C++ that tests need in addition to the library, once a session."""

import functools
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.support import ROOT, missing

HERE = Path(__file__).parent
RUNTIMES = {"thread": "tsan", "address,undefined": "asan"}  # what g++ must come with


@functools.cache
def _folder() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="bnengine-cpu-")


@functools.cache
def compiled(*sources: Path, name: str, sanitize: str = "", shared: bool = False) -> Path:
    """A program, or a shared library, of C++ sources; the test is skipped where it cannot be."""
    if shutil.which("g++") is None:
        missing("g++", "g++ is not installed")
    options = [
        "-std=gnu++17",
        "-Wall",
        "-Wextra",
        "-Werror",
        "-g",
        f"-I{ROOT / 'kernels'}",
        "-pthread",
        "-ffp-contract=off",
    ]
    if sanitize:
        library = f"lib{RUNTIMES[sanitize]}.so"
        found = subprocess.run(["g++", f"-print-file-name={library}"], capture_output=True, text=True, check=True)
        if not Path(found.stdout.strip()).is_file():
            missing(RUNTIMES[sanitize], f"g++ comes without {library}")
        options += [f"-fsanitize={sanitize}", "-fno-sanitize-recover=all", "-O1"]
    else:
        options += ["-O2"]
    if shared:
        options += ["-shared", "-fPIC"]
    out = Path(_folder().name) / f"{name}-{sanitize.replace(',', '-') or 'plain'}"
    done = subprocess.run(["g++", *options, *map(str, sources), "-o", str(out)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return out


def cmake() -> str:
    """cmake, of the system or of this environment."""
    return shutil.which("cmake") or str(Path(sys.executable).parent / "cmake")


def environment() -> dict[str, str]:
    """The environment without an outer run's options for sanitizers."""
    return {k: v for k, v in os.environ.items() if not k.endswith("SAN_OPTIONS") and k != "LD_PRELOAD"}
