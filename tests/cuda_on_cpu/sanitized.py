"""The kernels and their launchers under g++'s sanitizers: python -m tests.cuda_on_cpu.sanitized [options of pytest].

What a kernel reads or writes outside of its arrays, in memory that was freed, beyond a shared array, or at an address
that is no multiple of what it moves at once, ends the run with a report that names kernel and line; so does a shift,
a division or a sum of integers that C++ leaves undefined.
"""

import os
import subprocess
import sys
from pathlib import Path

from tests.support import required

CHECKS = "address,alignment,bounds,shift,integer-divide-by-zero,signed-integer-overflow"
# The threads of a block have stacks that the sanitizer does not know: it is to leave stacks alone.
COMPILED_WITH = f"-fsanitize={CHECKS} -fno-sanitize-recover=all --param asan-stack=0 -g1"
TESTS = ("tests/contracts", "tests/cuda_on_cpu", "tests/fused")


def preload(name: str = "asan") -> Path | str:
    """A sanitizer's library, which must be the first of a process; or why there is none."""
    try:
        asked = ["g++", f"-print-file-name=lib{name}.so"]
        found = Path(subprocess.run(asked, capture_output=True, text=True, check=True).stdout.strip())
    except (OSError, subprocess.CalledProcessError) as error:
        return f"g++ does not say where lib{name} is ({error})"
    if not found.is_absolute():
        return f"g++ comes without lib{name}: its package is called lib{name}, with a version number or without"
    return found.resolve()


def environment(library: Path) -> dict[str, str]:
    """The variables of a process whose kernels are sanitized. CPython's own leaks are none of our business."""
    return os.environ | {
        "LD_PRELOAD": str(library),
        "ASAN_OPTIONS": "detect_leaks=0:malloc_context_size=8:quarantine_size_mb=64",
        "UBSAN_OPTIONS": "print_stacktrace=1",
        "BNENGINE_CUDA_ON_CPU_FLAGS": COMPILED_WITH,
        "BNENGINE_WALK": "simulated",
    }


def refusal(library: Path | str) -> str:
    """Why Python cannot run with the library, or ""."""
    if isinstance(library, str):
        return library
    probe = [sys.executable, "-c", "from tests.cuda_on_cpu.redzones import sanitized as s; raise SystemExit(not s())"]
    # On a kernel that puts memory where the sanitizer keeps its notes, the process may report that without end.
    command = ["timeout", "60", *probe]
    done = subprocess.run(command, env=environment(library), capture_output=True, text=True, check=False)
    return f"Python does not start with {library} preloaded: {done.stderr[-400:]}" if done.returncode else ""


def main(options: list[str]) -> int:
    """Run the tests in a process of their own; the exit status is pytest's."""
    library = preload()
    if reason := refusal(library):
        print(f"the kernels are not run under sanitizers: {reason}")
        return int("asan" in required())
    # The sanitizer writes its report where file descriptor 2 leads: pytest must leave that one open.
    command = [sys.executable, "-m", "tests.cuda_on_cpu.sanitized", "--here", "--capture=sys"]
    chosen = [o for o in options if not o.startswith("-") and Path(o.split("::")[0]).exists()] or [*TESTS]
    rest = [o for o in options if o not in chosen]
    assert isinstance(library, Path)
    return subprocess.run([*command, *rest, *chosen], env=environment(library), check=False).returncode


def here(options: list[str]) -> int:
    """Run pytest in this process, whose children need no sanitizer: g++ least of all."""
    import pytest

    from tests.cuda_on_cpu.instances import INSTANCES
    from tests.cuda_on_cpu.launch import compile_ahead

    del os.environ["LD_PRELOAD"]
    if options[-len(TESTS) :] == [*TESTS]:
        compile_ahead(INSTANCES, at_once=os.cpu_count() or 1)
    return int(pytest.main(["-m", "not gpu and not peers and not cuda_proof", *options]))


if __name__ == "__main__":
    sys.exit(here(sys.argv[2:]) if sys.argv[1:2] == ["--here"] else main(sys.argv[1:]))
