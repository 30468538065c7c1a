"""The library of native kernels under g++'s sanitizers: python -m tests.cpu.sanitized [options of pytest].

It is built twice more, and tests that load the library run on it: with -fsanitize=address,undefined
what every kernel does, with -fsanitize=thread what several threads do to a step, cut finely.
"""

import os
import platform
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from tests.cpu.driver import cmake
from tests.cuda_on_cpu.sanitized import environment, preload
from tests.support import ROOT, required

NETWORKS = "test_random_networks.py::test_"


class Check(NamedTuple):
    """Sanitizers, the library that they need at the front of a process, its variables, and the tests."""

    sanitizers: str
    runtime: str
    variables: Mapping[str, str]
    tests: tuple[str, ...]

    @property
    def folder(self) -> Path:
        """Where the kernels are built."""
        return ROOT / "build" / f"kernels-{self.runtime}"


CHECKS = (
    Check(
        "address,undefined",
        "asan",
        {},  # as the CUDA kernels' tests have it
        (
            *("test_replay.py", "test_replay_refusals.py", "test_arrays.py", "../contracts/test_walk.py"),
            f"{NETWORKS}op_by_op_gives_the_bits_of_the_plan",
        ),
    ),
    Check(
        "thread",
        "tsan",
        {"TSAN_OPTIONS": "halt_on_error=1"},  # after a race a run may never end
        (
            f"{NETWORKS}small_blocks_on_three_threads_change_no_bit",
            "test_replay.py::test_groups_that_need_nothing_of_each_other_run_at_once",
            "test_replay.py::test_plans_run_while_threads_change_in_number",
        ),
    ),
)


def built(check: Check) -> str:
    """Build the library; why it could not be, or ""."""
    define = [f"-DBNENGINE_SANITIZE={check.sanitizers}", f"-DBNENGINE_REASON={check.folder / 'unbuilt.txt'}"]
    if platform.machine() == "x86_64":
        define.append("-DBNENGINE_SETS=v3")  # one is enough: it is the same text
    build = "--build", check.folder, "--parallel", "2"
    for command in (("-S", ROOT / "kernels", "-B", check.folder, *define), build):
        done = subprocess.run([cmake(), *map(str, command)], capture_output=True, text=True, check=False)
        if done.returncode:
            return f"the kernels did not compile\n{done.stdout[-4000:]}{done.stderr[-4000:]}"
    return ""


def run(check: Check, options: list[str]) -> int:
    """Run its tests in a process of their own; the exit status is pytest's."""
    library = preload(check.runtime)
    if reason := library if isinstance(library, str) else built(check):
        print(f"the native kernels are not run under -fsanitize={check.sanitizers}: {reason}")
        return int(check.runtime in required())
    assert isinstance(library, Path)
    tests = [str(Path("tests") / "cpu" / name) for name in check.tests]
    variables = (
        environment(library)
        | check.variables
        | {"BNENGINE_CPU_LIBRARY": str(check.folder / "_kernels.so"), "BNENGINE_WALK": "native"}
    )
    # The sanitizer writes its report where file descriptor 2 leads: pytest must leave that one open.
    command = [sys.executable, "-m", "pytest", "--capture=sys", "-m", "not gpu and not peers", "-k", "not avx_512"]
    return subprocess.run([*command, *options, *tests], env=variables, cwd=ROOT, check=False).returncode


def main(options: list[str]) -> int:
    """Run all; 0 if nothing was found."""
    return max([abs(run(check, options)) for check in CHECKS])


if __name__ == "__main__":
    os.chdir(ROOT)
    sys.exit(main(sys.argv[1:]))
