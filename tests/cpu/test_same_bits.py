"""The same bits after 200 steps: on any number of threads, for any instruction set, as a plan and op by op."""

import json
import os
import subprocess
import sys

import pytest

from bnengine.fused.cpu import _load
from tests.cpu.same_bits import TRAININGS, batches, make, state
from tests.support import ROOT, missing

pytestmark = [pytest.mark.usefixtures("native"), pytest.mark.slow]

# By instruction set: the numbers of threads of plans, and of steps that run op by op.
RUNS = {"v3": ("1,2,3,8", "3"), "v4": ("1,2,3,8", "1"), "aarch64": ("1,2,3,8", "1,3")}
BUSY = "while True: pass"


@pytest.fixture(scope="module")
def found():
    """{training: {run: {array: digest}}} of processes that share the machine with each other and with a busy one."""
    if reason := _load.available():
        missing("kernels", reason)
    library = _load.library()
    there = [isa for isa in _load.sets(library) if library.bnengine_isa_runs(isa.encode())]
    busy, children, results = subprocess.Popen([sys.executable, "-c", BUSY]), {}, {}
    try:
        for isa in there:
            command = [sys.executable, "-m", "tests.cpu.same_bits", *RUNS[isa]]
            variables = os.environ | {_load.ISA: isa}
            children[isa] = subprocess.Popen(command, env=variables, cwd=ROOT, stdout=subprocess.PIPE, text=True)
        for isa, child in children.items():
            out, _ = child.communicate(timeout=600)
            assert child.returncode == 0
            result = json.loads(out)
            assert result["isa"] == isa
            for training, runs in result["found"].items():
                results.setdefault(training, {}).update({f"{isa}, {run}": each for run, each in runs.items()})
    finally:
        for process in (busy, *children.values()):
            process.kill()
            process.wait()
    return results


@pytest.mark.parametrize("training", TRAININGS)
def test_every_run_leaves_the_same_bits(training, found):
    runs = iter(found[training].items())
    first, expected = next(runs)
    assert {"losses", "parameters", "statistics"} <= expected.keys()
    for run, digests in runs:
        other = [name for name, digest in digests.items() if digest != expected[name]]
        assert digests.keys() == expected.keys()
        assert not other, f"{run} differs from {first} in {', '.join(other)}"


def test_trainings_that_differ_have_other_digests(found):
    ends = [next(iter(runs.values()))["parameters"] for runs in found.values()]
    assert len({*ends}) == len(TRAININGS)


def test_op_by_op_gives_the_bits_of_the_plan_for_1000_steps():
    steps = [make("residual", replay=replay, steps=1000) for replay in (True, False)]
    for t in range(1000):
        for step in steps:
            step(batches("residual", t % 50))
        assert state(steps[0]) == state(steps[1]), f"step {t + 1}"
    assert {mode.how for mode in steps[0].modes()} == {"one call"}
    assert not steps[1].modes()
