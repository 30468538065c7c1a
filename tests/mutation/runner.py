"""Running tests against mutants: in a copy of the package, in a child that has the large libraries imported already."""

import contextlib
import importlib
import os
import re
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from tests.cuda_on_cpu.module import cache_folder

from . import calls
from .mutants import Mutant
from .native import LIBRARY, SAME, STILLBORN, Native
from .relevant import NATIVE, POOL, Stage, stages

COPIED = ("bnengine", "kernels", "tests", "pyproject.toml")
PRELOADED = ("numpy", "pytest", "_pytest.assertion.rewrite", "hypothesis", "array_api_strict", "array_api_compat.numpy")
PRELOADED += ("hypothesis.extra.numpy", "torch", "array_api_compat.torch", "safetensors.numpy", "rich.progress")
NO_TESTS = 5  # pytest's exit status where it found none
BROKEN = 70  # the child itself failed, not the tests
COMPILING = 300  # seconds that g++ may take
MEMORY = 8 * 2**30
OPTIONS = ("-x", "-q", "-p", "no:cacheprovider", "-rN", "--hypothesis-seed=0")  # the same judge for every mutant


class Outcome(NamedTuple):
    """How a mutant ended, in which stage, with what output.

    "caught", "timed out" (counts as caught), "survived"; it is none where it is "stillborn": g++ refuses it, or "same":
    g++ makes the same code of it.
    """

    mutant: Mutant
    verdict: str
    stage: str
    seconds: float
    output: str

    @property
    def lives(self) -> bool:
        """Whether it is a mutant."""
        return self.verdict not in ("stillborn", "same")


class Run(NamedTuple):
    """A test file that was timed, or some of its tests."""

    test: str
    only: str


def runs(stage: Stage) -> list[Run]:
    return [Run(test, stage.only) for test in stage.tests]


@dataclass
class _Place:
    """A copy of the package with at most one mutant in it, and the child that is judging it."""

    folder: Path
    mutant: Mutant | None = None
    pending: list[Stage] = field(default_factory=list)
    stage: Stage = field(default_factory=lambda: Stage(""))
    pid: int = 0
    began: float = 0.0
    limit: float = 0.0
    first: float = 0.0


class Runner:
    """Judges mutants in `jobs` copies at a time; a context manager that removes the copies at its end.

    `recorded`: a file with the functions that each test calls, written where it is missing; the tests that call what a
    mutant changes judge it.
    """

    def __init__(self, root: Path, texts: dict[str, str], *, jobs: int, recorded: Path | None = None) -> None:
        self.root, self.texts, self.jobs = root, texts, jobs
        self.recorded, self.tests = recorded, list[calls.Judge]()
        self._made = tempfile.TemporaryDirectory(prefix="mutation-")
        self.home = Path(self._made.name)
        self.base = self.home / "base"
        self.native: Native | None = None
        self.seconds: dict[Run, float] = {}
        self._stamp = 0

    def __enter__(self) -> "Runner":
        preload()
        self._find_compiled()
        self.base.mkdir()
        for name in COPIED:
            copy = shutil.copytree if (self.root / name).is_dir() else shutil.copy2
            copy(self.root / name, self.base / name)
        for path, text in self.texts.items():
            (self.base / path).write_text(text, encoding="utf-8")
        if any(path.startswith(NATIVE) for path in self.texts):
            self.native = Native(self.base, self.home / "objects")
            self.native.build(self.jobs)
        return self

    def __exit__(self, *_: object) -> None:
        self._made.cleanup()

    def _find_compiled(self) -> None:
        """Kernels that are compiled already are found, and what is compiled here goes with the copies."""
        cache, there = self.home / "cache" / "bnengine" / "cuda_on_cpu", cache_folder()
        cache.mkdir(parents=True)
        for library in there.glob("*.so") if there.is_dir() else ():
            (cache / library.name).symlink_to(library)
        os.environ["XDG_CACHE_HOME"] = str(self.home / "cache")

    def _stages(self, mutant: Mutant) -> list[Stage]:
        if self.recorded:
            return calls.stages(mutant, self.tests)
        return stages(mutant, self.base, self.texts)

    def check(self, mutants: Iterable[Mutant]) -> str:
        """Run the tests nearest to `mutants` on the unmutated copy, which must pass; a line that says so."""
        if self.recorded:
            self._record(self.recorded)
        else:
            near = [stage for mutant in mutants for stage in self._stages(mutant) if stage.name == "near"]
            self._measure([run for stage in near for run in runs(stage)])
        for i in range(self.jobs):
            if not (self.home / str(i)).exists():
                shutil.copytree(self.base, self.home / str(i))
        if self.recorded:
            return f"{len(self.tests)} tests pass and have their calls recorded"
        return f"the copy passes {len(self.seconds)} runs of tests in {sum(self.seconds.values()):.0f} s"

    def _record(self, path: Path) -> None:
        """Run all tests on the unmutated copy; those that pass, and the functions that they call, go to `path`."""
        if not path.exists():
            partial = path.resolve().with_suffix(".partial")
            partial.unlink(missing_ok=True)
            stage = Stage("", tuple(calls.files(self.base)), plugin=calls.Recorder(partial, self.base))
            pid = _start(self.base, stage, self.home / "calls.log", None, bytecode=True)
            os.waitpid(pid, 0)
            partial.rename(path)
        self.tests = calls.load(path)

    def _measure(self, wanted: Iterable[Run]) -> None:
        """Run test files that have not been run without a mutation yet: they must pass, and set the time limits."""
        waiting = sorted(set(wanted) - self.seconds.keys(), reverse=True)
        running: dict[int, tuple[Run, float]] = {}
        while waiting or running:
            while waiting and len(running) < self.jobs:
                run = waiting.pop()
                stage = Stage("", (run.test,), only=run.only)
                pid = _start(self.base, stage, self._log(run), self.native, bytecode=True)
                running[pid] = (run, time.monotonic())
            for pid, (run, began) in list(running.items()):
                status = _polled(pid)
                if status is not None:
                    del running[pid]
                    self.seconds[run] = time.monotonic() - began
                if status not in (None, 0, NO_TESTS):
                    for other in running:
                        _kill(other)
                    raise SystemExit(f"mutation: {run.test} fails without any mutation\n{_tail(self._log(run))}")
            time.sleep(0.01)

    def _log(self, run: Run) -> Path:
        return self.home / (re.sub(r"\W+", "-", f"{run.test} {run.only}")[:200] + ".log")

    def judge(self, mutants: Iterable[Mutant]) -> Iterator[Outcome]:
        """Outcomes as they come, not in the order of the mutants."""
        waiting = list(mutants)[::-1]
        places = [_Place(self.home / str(i)) for i in range(self.jobs)]
        try:
            while waiting or any(place.mutant for place in places):
                for place in places:
                    if place.mutant is None and waiting:
                        self._load(place, waiting.pop())
                    outcome = self._poll(place) if place.mutant else None
                    if outcome:
                        yield outcome
                time.sleep(0.01)
        finally:
            for place in places:
                if place.pid:
                    _kill(place.pid)

    def _load(self, place: _Place, mutant: Mutant) -> None:
        place.mutant, place.pid, place.first = mutant, 0, time.monotonic()
        place.pending = self._stages(mutant)
        self._write(place, mutant.path, mutant.source(self.texts[mutant.path]))

    def _write(self, place: _Place, path: str, text: str) -> None:
        (place.folder / path).write_text(text, encoding="utf-8")
        self._stamp += 1  # another time for each, so that no byte code of another mutant passes for this one's
        os.utime(place.folder / path, (10**9 + self._stamp,) * 2)

    def _poll(self, place: _Place) -> Outcome | None:
        log = place.folder.with_suffix(".log")
        verdict = ""
        if place.pid:
            code = _polled(place.pid)
            late = time.monotonic() - place.began > place.limit
            if code is None and not late:
                return None
            if code is None:
                _kill(place.pid)
                verdict = "stillborn" if place.stage.compiled else "timed out"
            elif code in (STILLBORN, SAME):
                verdict = "stillborn" if code == STILLBORN else "same"
            elif code == -signal.SIGXCPU:
                verdict = "timed out"
            elif code == BROKEN:
                raise RuntimeError(f"mutation: no tests could be run\n{_tail(log)}")
            elif code not in (0, NO_TESTS):
                verdict = "caught"
            place.pid = 0
        if not verdict and place.pending:
            place.stage = place.pending.pop(0)
            if self.recorded:
                needed = 200 + 30 * place.stage.seconds  # the processor's time is limited in the child
            else:
                self._measure(runs(place.stage))
                needed = 6 * sum(self.seconds[run] for run in runs(place.stage))
            if place.stage.compiled:
                needed += COMPILING
            place.began, place.limit = time.monotonic(), 20 + needed
            place.pid = _start(place.folder, place.stage, log, self.native, bytecode=False)
            return None
        return self._settle(place, verdict or "survived", _tail(log))

    def _settle(self, place: _Place, verdict: str, output: str) -> Outcome:
        mutant = place.mutant
        assert mutant is not None
        self._write(place, mutant.path, self.texts[mutant.path])
        if self.native:
            self.native.restore(place.folder)
        place.mutant = None
        stage = "" if verdict == "survived" else place.stage.name
        return Outcome(mutant, verdict, stage, time.monotonic() - place.first, output)


def preload() -> None:
    """Import what the tests import, but nothing of the package or its tests: every child starts with these."""
    for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ.setdefault(variable, "1")  # several children run at once, and a fork keeps no threads
    for name in PRELOADED:
        with contextlib.suppress(ImportError):  # an optional library; its tests are skipped then
            importlib.import_module(name)


def _start(folder: Path, stage: Stage, log: Path, native: Native | None, *, bytecode: bool) -> int:
    """Fork a child that does what a stage says in a copy; its process id, which is that of its group too."""
    sys.stdout.flush()
    sys.stderr.flush()
    pid = os.fork()
    if pid:
        return pid
    status = BROKEN
    try:
        os.setsid()
        signal.signal(
            signal.SIGINT, signal.default_int_handler
        )  # a background job ignores it, and so would its children
        out = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(out, 1)
        os.dup2(out, 2)
        _enter(folder, native=native is not None, bytecode=bytecode)
        if not stage.compiled:
            status = _tests(folder, stage)
        else:
            status = native.compile(folder, stage.compiled) if native else _compile(stage.compiled)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def _enter(folder: Path, *, native: bool, bytecode: bool) -> None:
    """The package and its tests come from the copy from now on."""
    os.chdir(folder)
    for name in [name for name in sys.modules if name.partition(".")[0] in ("tests", "bnengine")]:
        del sys.modules[name]
    sys.path[:] = [str(folder), *(entry for entry in sys.path if entry and not (Path(entry) / "bnengine").is_dir())]
    # An editable installation finds the checkout before any path is searched.
    sys.meta_path[:] = [finder for finder in sys.meta_path if not type(finder).__module__.startswith("_editable")]
    importlib.invalidate_caches()
    if native:  # tests that skip where there is no library would find nothing wrong with one that cannot be loaded
        os.environ["BNENGINE_REQUIRE"] = "kernels"
        os.environ["BNENGINE_CPU_LIBRARY"] = str(folder / LIBRARY)
    else:  # what a contributor runs; what the checkout must not skip may be out of reach in a copy
        os.environ.pop("BNENGINE_REQUIRE", None)
        os.environ.pop("BNENGINE_CPU_LIBRARY", None)
    os.environ["PYTHONPATH"] = str(folder)
    os.environ["PYTHONDONTWRITEBYTECODE"] = "" if bytecode else "1"
    sys.dont_write_bytecode = not bytecode
    found = importlib.util.find_spec("bnengine")
    if found is None or not str(found.origin).startswith(str(folder)):
        raise RuntimeError(f"mutation: bnengine would come from {found}, not from the copy")


def _compile(files: Iterable[str]) -> int:
    """Every instance of some kernel files, for the tests that come next."""
    instances = importlib.import_module("tests.cuda_on_cpu.instances").INSTANCES
    module = importlib.import_module("tests.cuda_on_cpu.module")
    code = importlib.import_module("tests.cuda_on_cpu.source").kernel_source
    try:
        for file in files:
            module.CpuModule(code(file), instances[file])
    except (RuntimeError, OSError) as refused:
        print(refused)
        return STILLBORN
    return 0


def _tests(folder: Path, stage: Stage) -> int:
    import pytest

    if POOL not in stage.tests:  # a thread sanitizer asks for terabytes that it does not use
        resource.setrlimit(resource.RLIMIT_DATA, (MEMORY, MEMORY))
    if isinstance(stage.plugin, calls.Chosen):
        limit = round(30 + 6 * stage.seconds)
        resource.setrlimit(resource.RLIMIT_CPU, (limit, limit + 5))
    begin = [option for option in OPTIONS if option != "-x" or not isinstance(stage.plugin, calls.Recorder)]
    options = [
        "-m",
        "not slow and not gpu and not peers and not cuda_proof" if stage.plugin else "not slow and not gpu",
    ]
    options += ["--rootdir", str(folder)]
    options += ["-W", "ignore::pytest.PytestAssertRewriteWarning"]  # hypothesis is imported before pytest starts
    options += ["-k", stage.only] if stage.only else []
    plugins = [stage.plugin] if stage.plugin else []
    return int(pytest.main([*begin, *options, *stage.tests], plugins))


def _polled(pid: int) -> int | None:
    """The exit status of a child, None while it runs."""
    done, status = os.waitpid(pid, os.WNOHANG)
    return os.waitstatus_to_exitcode(status) if done else None


def _kill(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)
    os.waitpid(pid, 0)


def _tail(log: Path) -> str:
    return "\n".join(log.read_text(errors="replace").splitlines()[-40:]) if log.exists() else ""
