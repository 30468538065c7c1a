"""The tests that call a mutated function judge it, those that call little else first."""

import subprocess
import sys

import pytest

from tests.mutation import calls
from tests.mutation.calls import Judge
from tests.mutation.mutants import Mutant, mutants_of
from tests.support import ROOT

SOURCE = """
WIDTH = 2

def double(x):
    def inner():
        return x + x
    return inner()

class Box:
    size = 1 + 1

    def grow(self):
        return self.size + 1
"""
TESTS = """
import subprocess, sys
from toy.box import Box, double

def test_double():
    assert double(2) == 4

def test_box():
    assert Box().grow() == double(2) - 1

def test_fails():
    assert double(2) == 5

def test_process():
    subprocess.run([sys.executable, "-c", ""], check=True)
"""


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> list[Judge]:
    folder = tmp_path_factory.mktemp("copy")
    for name, text in (("toy/box.py", SOURCE), ("tests/test_box.py", TESTS)):
        (folder / name).parent.mkdir()
        (folder / name).write_text(text)
    code = (
        "import pathlib, pytest, sys; from tests.mutation import calls; calls.PACKAGE = 'toy'\n"
        "folder = pathlib.Path(sys.argv[1]); sys.path.insert(0, str(folder))\n"
        "options = ['-q', '-p', 'no:cacheprovider', '--rootdir', str(folder), str(folder / 'tests')]\n"
        "pytest.main(options, [calls.Recorder(folder / 'calls.jsonl', folder)])\n"
    )
    subprocess.run([sys.executable, "-c", code, str(folder)], cwd=ROOT, check=True, capture_output=True)
    return calls.load(folder / "calls.jsonl")


def mutant(scope: str) -> Mutant:
    return next(m for m in mutants_of("toy/box.py", SOURCE) if m.scope == scope)


def judges(scope: str, tests: list[Judge]) -> list[str]:
    found = calls.stages(mutant(scope), tests)
    return [test.rpartition("::")[2] for stage in found for test in sorted(stage.plugin.tests)]


def test_calls_of_tests_that_pass_are_recorded(recorded):
    found = {test.id.rpartition("::")[2]: test for test in recorded}
    assert found.keys() == {"test_double", "test_box", "test_process"}
    assert found["test_double"].calls == {"toy/box.py:double", "toy/box.py:double.inner"}
    assert [name for name, test in found.items() if test.spawns] == ["test_process"]


@pytest.mark.parametrize(
    ("scope", "names"),
    [
        ("double.inner", ["test_box", "test_double", "test_process"]),
        ("Box.grow", ["test_box", "test_process"]),
        ("Box", ["test_box", "test_process"]),
        ("module", ["test_box", "test_double", "test_process"]),
    ],
)
def test_judges_call_the_mutated_function_or_start_a_process(recorded, scope, names):
    assert judges(scope, recorded) == names


def test_a_survivor_costs_a_limited_time():
    place = "toy/box.py:Box.grow"
    tests = [Judge(f"tests/test_{n}.py::test", 15.0, False, frozenset({place, *map(str, range(n))})) for n in range(9)]
    near, *wide = calls.stages(mutant("Box.grow"), tests[::-1])
    assert near.tests == ("tests/test_0.py", "tests/test_1.py")
    assert not wide
    assert near.seconds == 30.0
