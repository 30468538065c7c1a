"""Running tests against mutants: in a copy of the package, in a child that has the large libraries imported already."""

import contextlib
import importlib
import os
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

from .mutants import Mutant
from .relevant import stages

COPIED = ("bnengine", "tests", "pyproject.toml")
PRELOADED = ("numpy", "pytest", "_pytest.assertion.rewrite", "hypothesis", "array_api_strict", "array_api_compat.numpy")
PRELOADED += ("hypothesis.extra.numpy", "torch", "array_api_compat.torch", "safetensors.numpy", "rich.progress")
NO_TESTS = 5  # pytest's exit status where it found none
BROKEN = 70  # the child itself failed, not the tests
MEMORY = 8 * 2**30


class Outcome(NamedTuple):
    """How a mutant ended: "caught", "timed out" (counts as caught) or "survived"; in which stage, with what output."""

    mutant: Mutant
    verdict: str
    stage: str
    seconds: float
    output: str


@dataclass
class _Place:
    """A copy of the package with at most one mutant in it, and the child that is judging it."""

    folder: Path
    mutant: Mutant | None = None
    pending: list[tuple[str, list[str]]] = field(default_factory=list)
    stage: str = ""
    pid: int = 0
    began: float = 0.0
    limit: float = 0.0
    first: float = 0.0


class Runner:
    """Judges mutants in `jobs` copies at a time; a context manager that removes the copies at its end."""

    def __init__(self, root: Path, texts: dict[str, str], *, jobs: int) -> None:
        self.root, self.texts, self.jobs = root, texts, jobs
        self._made = tempfile.TemporaryDirectory(prefix="mutation-")
        self.home = Path(self._made.name)
        self.limits: dict[str, float] = {}
        self._stamp = 0

    def __enter__(self) -> "Runner":
        preload()
        base = self.home / "0"
        base.mkdir()
        for name in COPIED:
            copy = shutil.copytree if (self.root / name).is_dir() else shutil.copy2
            copy(self.root / name, base / name)
        for path, text in self.texts.items():
            (base / path).write_text(text, encoding="utf-8")
        return self

    def __exit__(self, *_: object) -> None:
        self._made.cleanup()

    def check(self, paths: Iterable[str]) -> dict[str, float]:
        """Run what will judge mutants of `paths` on the unmutated copy, which must pass; seconds by test file.

        Sets the time limits, and leaves byte code for the copies.
        """
        base, seconds = self.home / "0", {}
        needed = {name for path in paths for files in stages(path, base).values() for name in files}
        for name in sorted(needed):
            began = time.monotonic()
            log = self.home / "check.log"
            status = _wait(_start(base, [name], log, bytecode=True), 300)
            if status == NO_TESTS:
                continue
            if status != 0:
                raise SystemExit(f"mutation: {name} fails without any mutation (status {status})\n{_tail(log)}")
            seconds[name] = time.monotonic() - began
        self.limits = seconds
        for i in range(1, self.jobs):
            shutil.copytree(base, self.home / str(i), dirs_exist_ok=True)
        return seconds

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
        there = stages(mutant.path, self.home / "0")
        kept = {stage: [name for name in files if name in self.limits] for stage, files in there.items()}
        place.pending = [(stage, files) for stage, files in kept.items() if files]
        self._write(place, mutant.path, mutant.source(self.texts[mutant.path]))

    def _write(self, place: _Place, path: str, text: str) -> None:
        (place.folder / path).write_text(text, encoding="utf-8")
        self._stamp += 1  # another time for each, so that no byte code of another mutant passes for this one's
        os.utime(place.folder / path, (10**9 + self._stamp,) * 2)

    def _poll(self, place: _Place) -> Outcome | None:
        log = place.folder.with_suffix(".log")
        verdict = ""
        if place.pid:
            pid, status = os.waitpid(place.pid, os.WNOHANG)
            if pid:
                place.pid, code = 0, os.waitstatus_to_exitcode(status)
                if code == BROKEN:
                    raise RuntimeError(f"mutation: no tests could be run\n{_tail(log)}")
                verdict = "" if code in (0, NO_TESTS) else "caught"
            elif time.monotonic() - place.began > place.limit:
                _kill(place.pid)
                place.pid, verdict = 0, "timed out"
            else:
                return None
        if not verdict and place.pending:
            place.stage, files = place.pending.pop(0)
            place.began, place.limit = time.monotonic(), 20 + 6 * sum(self.limits[name] for name in files)
            place.pid = _start(place.folder, files, log, bytecode=False)
            return None
        return self._settle(place, verdict or "survived", _tail(log))

    def _settle(self, place: _Place, verdict: str, output: str) -> Outcome:
        mutant = place.mutant
        assert mutant is not None
        self._write(place, mutant.path, self.texts[mutant.path])
        place.mutant = None
        stage = "" if verdict == "survived" else place.stage
        return Outcome(mutant, verdict, stage, time.monotonic() - place.first, output)


def preload() -> None:
    """Import what the tests import, but nothing of the package or its tests: every child starts with these."""
    for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ.setdefault(variable, "1")  # several children run at once, and a fork keeps no threads
    for name in PRELOADED:
        with contextlib.suppress(ImportError):  # an optional library; its tests are skipped then
            importlib.import_module(name)


def _start(folder: Path, files: list[str], log: Path, *, bytecode: bool) -> int:
    """Fork a child that runs pytest on `files` of a copy; its process id, which is that of its group too."""
    sys.stdout.flush()
    sys.stderr.flush()
    pid = os.fork()
    if pid:
        return pid
    status = BROKEN
    try:
        os.setsid()
        out = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(out, 1)
        os.dup2(out, 2)
        status = _tests(folder, files, bytecode=bytecode)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def _tests(folder: Path, files: list[str], *, bytecode: bool) -> int:
    import pytest

    os.chdir(folder)
    resource.setrlimit(resource.RLIMIT_DATA, (MEMORY, MEMORY))
    for name in [name for name in sys.modules if name.partition(".")[0] in ("tests", "bnengine")]:
        del sys.modules[name]
    sys.path[:] = [str(folder), *(entry for entry in sys.path if entry and not (Path(entry) / "bnengine").is_dir())]
    importlib.invalidate_caches()
    os.environ.pop(
        "BNENGINE_REQUIRE", None
    )  # what the tests of the checkout must not skip may be out of reach in a copy
    os.environ["PYTHONPATH"] = str(folder)
    os.environ["PYTHONDONTWRITEBYTECODE"] = "" if bytecode else "1"
    sys.dont_write_bytecode = not bytecode
    found = importlib.util.find_spec("bnengine")
    if found is None or not str(found.origin).startswith(str(folder)):
        raise RuntimeError(f"mutation: bnengine would come from {found}, not from the copy")
    options = ["-x", "-q", "-m", "not slow and not gpu", "-p", "no:cacheprovider", "-r", "", "--rootdir", str(folder)]
    options += ["--hypothesis-seed=0"]  # the same judge for every mutant
    options += ["-W", "ignore::pytest.PytestAssertRewriteWarning"]  # hypothesis is imported before pytest starts
    return int(pytest.main([*options, *files]))


def _wait(pid: int, limit: float) -> int:
    end = time.monotonic() + limit
    while time.monotonic() < end:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.01)
    _kill(pid)
    return -1


def _kill(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)
    os.waitpid(pid, 0)


def _tail(log: Path) -> str:
    return "\n".join(log.read_text(errors="replace").splitlines()[-40:]) if log.exists() else ""
