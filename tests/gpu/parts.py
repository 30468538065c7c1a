"""The parts of `make gpu-verify` and `make gpu-bench`, in order of value, each with its deadline in seconds.

A dry run has the same parts on the simulated device, with fewer tests, kernels and steps.
"""

import glob
import os
import shutil
from collections.abc import Callable
from pathlib import Path

from tests.gpu import outcomes
from tests.gpu.runner import Ended, Outcome, Part, by_exit_status

ENGINE = ("cupy", "numpy", "array_api_compat")
TESTS, COMMANDS = (*ENGINE, "pytest"), (*ENGINE, "click", "tomli_w")
# Libraries of other ages than ours have warnings that are not ours to answer for.
PYTEST = ("pytest", "-m", "gpu", "-q", "-p", "tests.gpu.report", "-p", "no:cacheprovider", "-W", "default::Warning",
          "--continue-on-collection-errors")  # fmt: skip
# A hang in one group leaves the others. Where its tests are, how many seconds, which of them a dry run takes; the last
# one has all that are in no other.
GROUPS = {
    "tests: launchers": (
        ("tests/contracts", "tests/fused/test_launches.py"), 120, "within_their and float32 and (moments or correct)",
    ),
    "tests: cublaslt": (("tests/fused/test_cublaslt_gpu.py",), 60, "captured or (epilogue and float32-relu)"),
    "tests: step": (("tests/fused/test_step.py", "tests/fused/test_epoch.py"), 90, "replayed_step"),
    "tests: replay": (
        ("tests/gpu/test_replay.py", "tests/fused/test_graph.py", "tests/fused/test_uploads.py"), 90, "bytes",
    ),
    "tests: same everywhere": (("tests/gpu/test_same.py",), 60, ""),
    "tests: ops": (("tests/ops",), 60, "special"),
    "tests: memory": (("tests/gpu/test_memory.py", "tests/fused/test_steady.py"), 90, "resident or host_keep"),
    "tests: others": (("tests",), 120, "unusual and transposed"),
}  # fmt: skip
SANITIZERS = ("memcheck", "racecheck", "synccheck", "initcheck")
# It is to look at kernels, and to wait until Python has loaded the driver.
SANITIZING = ("--report-api-errors", "no", "--launch-timeout", "0", "--print-limit", "20")
BENCH_SECONDS = 500
MARGIN = 20  # seconds that a command with its own deadline has beyond it
DRY = 10  # times as long a dry run may take: kernels run on a CPU, and have to be compiled by g++ if they never were


def _part(
    name: str, module: str, *arguments: str, seconds: float, dry: bool,
    outcome_of: Callable[[Ended], Outcome] = by_exit_status, needs: tuple[str, ...] = ENGINE, alone: bool = False,
) -> Part:  # fmt: skip
    before = ("-m", "tests.gpu.simulate") if dry else ("-m",)
    seconds *= DRY if dry else 1
    return Part(name, ("python", *before, module, *arguments), seconds, outcome_of, needs, alone)


def environment(dry: bool) -> Part:
    """What the machine is."""
    outcome_of = outcomes.of_environment
    return _part(
        "environment", "tests.gpu.environment", seconds=60, dry=dry, outcome_of=outcome_of, needs=(), alone=True
    )


def verify(dry: bool, _out: Path) -> list[Part]:
    """Everything that says whether results are right."""
    compilers = "1" if dry else str(max(1, min(8, (os.cpu_count() or 1) // 2)))
    parts = [
        _part("smoke", "tests.gpu.smoke", seconds=45, dry=dry, alone=True),
        _part("every kernel", "tests.gpu.every_kernel", "--jobs", compilers, seconds=120, dry=dry, alone=True),
        *(_tests(name, dry) for name in GROUPS),
        _part(
            "verify", "bnengine", "verify", "--backend", "cupy", "--json", *(("--quick",) if dry else ()),
            seconds=150, dry=dry, outcome_of=outcomes.of_certificate, needs=COMMANDS,
        ),
        *(_sanitizer(tool, dry) for tool in SANITIZERS),
    ]  # fmt: skip
    order = ["smoke", "every kernel", *list(GROUPS)[:5], "verify", "memcheck", "racecheck", *list(GROUPS)[5:]]
    return sorted(parts, key=lambda part: order.index(part.name) if part.name in order else len(order))


def _tests(name: str, dry: bool) -> Part:
    where, seconds, few = GROUPS[name]
    selected = ("-k", few) if dry and few else ()
    if name == list(GROUPS)[-1]:
        taken = [path for group in GROUPS.values() if group[0] != where for path in group[0]]
        selected = (*selected, *(f"--ignore={path}" for path in taken))
    return _part(name, *PYTEST, *selected, *where, seconds=seconds, dry=dry, outcome_of=outcomes.of_tests, needs=TESTS)


def _sanitizer(tool: str, dry: bool) -> Part:
    program = sanitizer()
    under = _part(tool, "tests.gpu.every_kernel", seconds=100, dry=dry).command
    settings = ("--tool", tool, "--error-exitcode", str(outcomes.FOUND), *SANITIZING)
    refusal = "" if program else "compute-sanitizer is not installed here: it comes with the CUDA toolkit"
    refusal = "the simulated device has nothing that it could look at" if dry else refusal
    return Part(tool, (program, *settings, *under), 100, outcomes.of_sanitizer, ENGINE, refusal=refusal)


def sanitizer() -> str:
    """Where compute-sanitizer is, on the path or in a CUDA toolkit; "" if nowhere."""
    roots = [os.environ.get(name, "") for name in ("CUDA_HOME", "CUDA_PATH")]
    folders = [Path(root) for root in (*roots, *sorted(glob.glob("/usr/local/cuda*"), reverse=True)) if root]
    known = os.pathsep.join(str(folder / sub) for folder in folders for sub in ("bin", "compute-sanitizer"))
    return shutil.which("compute-sanitizer") or (shutil.which("compute-sanitizer", path=known) if known else None) or ""


def bench(dry: bool, out: Path) -> list[Part]:
    """Everything that says how fast it is; alone on the machine."""
    few = ("--quick", "--scale", "8192", "--without-peers", "--only", "kernels") if dry else ()
    command = ("python", *(("-m", "tests.gpu.simulate") if dry else ("-m",)), "bnengine", "bench", "--backend", "cupy")
    command = (*command, "--json", "{notes}", "--deadline", str(BENCH_SECONDS), *few)
    seconds = BENCH_SECONDS + MARGIN
    return [Part("bench", command, seconds, outcomes.of_benchmark, COMMANDS, alone=True, notes=out / "bench.json")]
