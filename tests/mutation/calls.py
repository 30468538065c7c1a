"""Which tests judge a mutant anywhere in the package: those that call the function it is in.

A run of the tests on the unmutated copy records the functions that each test calls, so the relation follows the code
when files move. Tests that call few functions run first; a limit of seconds ends what a survivor costs.
"""

import json
import os
import re
import sys
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import CodeType, FrameType
from typing import Any, NamedTuple

import pytest

from .mutants import Mutant
from .relevant import Stage

PACKAGE = "bnengine"
# Left out: what takes minutes, tests no code of the package, or belongs to the commands of the lab.
LEFT_OUT = ("mutation", "packaging", "gpu", "peers", "lab", "bench", "benchmarks", "explain", "report", "verify")
TIMED = ("test_kills.py", "test_signals.py")  # fail on a busy machine
NEAR_FILES = 3
SECONDS = 40.0  # of tests for a mutant
SPAWNING = ("subprocess.Popen", "os.posix_spawn", "os.fork")


class Judge(NamedTuple):
    """A test that passes: its processor time, children included, and the functions that it calls, "path:name"."""

    id: str
    seconds: float
    spawns: bool
    calls: frozenset[str]

    @property
    def file(self) -> str:
        return self.id.partition("::")[0]


def files(folder: Path) -> list[str]:
    """The test files whose calls are recorded."""
    found = [path.relative_to(folder) for path in sorted((folder / "tests").rglob("test_*.py"))]
    return [path.as_posix() for path in found if path.parts[1] not in LEFT_OUT and path.name not in TIMED]


def load(path: Path) -> list[Judge]:
    entries = map(json.loads, path.read_text(encoding="utf-8").splitlines())
    return [Judge(e["id"], e["seconds"], e["spawns"], frozenset(e["calls"])) for e in entries]


class Recorder:
    """A pytest plugin that writes a line of JSON for each test that passes."""

    def __init__(self, path: Path, folder: Path) -> None:
        self.path, self.root = path, f"{folder}{os.sep}"
        self.spawns = self.failed = False

    def pytest_sessionstart(self) -> None:
        sys.addaudithook(self._heard)

    def _heard(self, event: str, _: object) -> None:
        self.spawns |= event in SPAWNING

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self.failed |= not report.passed

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Iterator[None]:
        codes: set[CodeType] = set()

        def trace(frame: FrameType, _event: str, _argument: object) -> None:
            codes.add(frame.f_code)

        self.spawns = self.failed = False
        began = sum(os.times()[:4])
        threading.settrace(trace)
        sys.settrace(trace)
        try:
            return (yield)
        finally:
            sys.settrace(None)
            threading.settrace(None)  # type: ignore[arg-type]
            if not self.failed:
                self._write(item.nodeid, sum(os.times()[:4]) - began, codes)

    def _write(self, name: str, seconds: float, codes: Iterable[CodeType]) -> None:
        calls = {self._function(code) for code in codes} - {""}
        entry = {"id": name, "seconds": round(seconds, 2), "spawns": self.spawns, "calls": sorted(calls)}
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(entry) + "\n")

    def _function(self, code: CodeType) -> str:
        path = code.co_filename.removeprefix(self.root)
        if not path.startswith(f"{PACKAGE}/"):
            return ""
        name = re.sub(r"(^|\.)<[a-z]+>", "", code.co_qualname) or "module"
        return f"{path}:{name}"


class Chosen:
    """A pytest plugin that runs the chosen tests alone, file by file in the order of the choice."""

    def __init__(self, tests: Iterable[Judge]) -> None:
        self.tests = {test.id for test in tests}

    def pytest_collection_modifyitems(self, items: list[Any]) -> None:
        items[:] = [item for item in items if item.nodeid in self.tests]


def stages(mutant: Mutant, tests: Iterable[Judge]) -> list[Stage]:
    """The tests that call the mutated function, in two stages; where none does, those that start processes."""
    chosen, seconds = list[Judge](), 0.0
    for test in _judges(mutant, list(tests)):
        if seconds + test.seconds <= SECONDS or not chosen:
            chosen.append(test)
            seconds += test.seconds
    files = list(dict.fromkeys(test.file for test in chosen))
    found = []
    for name, some in (("near", files[:NEAR_FILES]), ("wide", files[NEAR_FILES:])):
        part = [test for test in chosen if test.file in some]
        if part:
            found.append(Stage(name, tuple(some), seconds=sum(t.seconds for t in part), plugin=Chosen(part)))
    return found


def _judges(mutant: Mutant, tests: list[Judge]) -> list[Judge]:
    place = f"{mutant.path}:{mutant.scope}"
    around = place.rpartition(".")[0] if "." in mutant.scope else mutant.path + ":"
    own = [test for test in tests if place in test.calls]
    # Code that runs at import, such as a field's default, is judged by all tests of its class, else of its file.
    for start in (f"{place}.", f"{around}.", f"{mutant.path}:"):
        own = own or [test for test in tests if any(call.startswith(start) for call in test.calls)]
    words = {*Path(mutant.path).parts[1:-1], Path(mutant.path).stem.lstrip("_")}
    spawned = [t for t in tests if t.spawns and words & set(re.split(r"[/_.]", t.file))]
    order = sorted(own, key=lambda test: (len(test.calls), test.seconds))
    return list(dict.fromkeys([*order, *sorted(spawned, key=lambda test: test.seconds)]))
