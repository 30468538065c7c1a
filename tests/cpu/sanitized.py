"""The library of native kernels under g++'s sanitizers: python -m tests.cpu.sanitized [options of pytest].

It is built with -fsanitize=address,undefined beside the ordinary one, and tests that load the library run on it.
"""

import os
import platform
import subprocess
import sys
from pathlib import Path

from tests.cpu.driver import cmake
from tests.cuda_on_cpu.sanitized import environment, preload
from tests.support import ROOT, required

BUILD = ROOT / "build" / "kernels-sanitized"
TESTS = ("test_replay.py", "test_launchers.py", "test_destinations.py", "test_edges.py")
NETWORKS = "test_random_networks.py::test_op_by_op_gives_the_bits_of_the_plan"


def built() -> str:
    """Build the library; why it could not be, or ""."""
    define = ["-DBNENGINE_SANITIZE=address,undefined", f"-DBNENGINE_REASON={BUILD / 'unbuilt.txt'}"]
    if platform.machine() == "x86_64":
        define.append("-DBNENGINE_SETS=v3")  # one is enough: it is the same text
    for command in (("-S", ROOT / "kernels", "-B", BUILD, *define), ("--build", BUILD, "--parallel", "2")):
        done = subprocess.run([cmake(), *map(str, command)], capture_output=True, text=True, check=False)
        if done.returncode:
            return f"the kernels did not compile\n{done.stdout[-4000:]}{done.stderr[-4000:]}"
    return ""


def main(options: list[str]) -> int:
    """Run the tests in a process of their own; the exit status is pytest's."""
    library = preload()
    if reason := library if isinstance(library, str) else built():
        print(f"the native kernels are not run under sanitizers: {reason}")
        return int("asan" in required())
    assert isinstance(library, Path)
    tests = [str(Path("tests") / "cpu" / name) for name in (*TESTS, NETWORKS)]
    variables = environment(library) | {"BNENGINE_CPU_LIBRARY": str(BUILD / "_kernels.so")}
    # The sanitizer writes its report where file descriptor 2 leads: pytest must leave that one open.
    command = [sys.executable, "-m", "pytest", "--capture=sys", "-m", "not gpu and not peers", "-k", "not avx_512"]
    command += [*options, *tests]
    return subprocess.run(command, env=variables, cwd=ROOT, check=False).returncode


if __name__ == "__main__":
    os.chdir(ROOT)
    sys.exit(main(sys.argv[1:]))
