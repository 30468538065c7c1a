"""The sanitizers name mistakes planted in copies of the kernels: part of `make kernels-sanitized`."""

import re
import subprocess
import sys

import pytest

from tests.cuda_on_cpu.launch import Guarded, arrivals
from tests.cuda_on_cpu.planted import BUGS
from tests.cuda_on_cpu.redzones import is_forbidden, sanitized
from tests.cuda_on_cpu.sanitized import environment, preload
from tests.support import ROOT

pytestmark = pytest.mark.skipif(not sanitized(), reason="no sanitizer is loaded: make kernels-sanitized")


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    library = preload()
    assert not isinstance(library, str)
    command = [sys.executable, "-m", "tests.cuda_on_cpu.planted", *arguments]
    return subprocess.run(command, env=environment(library), cwd=ROOT, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("name", BUGS)
def test_a_planted_mistake_ends_the_process_and_is_named(name):
    done = run(name)
    assert done.returncode != 0, done.stdout
    assert "nothing was found" not in done.stdout
    assert re.search(BUGS[name].named, done.stderr), done.stderr[:4000]


@pytest.mark.parametrize("name", ["reads_one_beyond", "loads_askew"])
def test_without_the_mistake_the_same_launch_ends_well(name):
    done = run(name, "--without")
    assert (done.returncode, done.stdout, done.stderr) == (0, "nothing was found\n", "")


@pytest.mark.parametrize("offset", [0, 2])
def test_an_array_may_be_touched_to_its_last_byte_and_no_further(offset):
    array = arrivals(5)
    held = Guarded(array, offset)
    first = held.array.ctypes.data
    assert not any(is_forbidden(first + i) for i in range(array.nbytes))
    assert is_forbidden(first - 1)
    assert is_forbidden(first + array.nbytes)
