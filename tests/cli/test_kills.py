"""Training killed by SIGKILL at any moment, in a save too, and resumed: the bits of a run that was never stopped."""

import json
import os
import random
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.cli.conftest import metrics, tensors
from tests.support import ROOT, missing

SEED = 20240607
AT_ANY_MOMENT = 20
EPOCHS = 24  # enough that most of the time is training
SMALL = f"--hidden 8 --epochs {EPOCHS} --batch-size 16 --no-plot"
OPTIONS = f"{SMALL} --checkpoint-every 2 --dropout 0.2 --average 0.9 --early-stopping {EPOCHS}"
SAVES = EPOCHS * (6 // 2 + 1) + 1  # six steps an epoch, two to a checkpoint, and one at the end

# A process that has imported everything once and forks a child for each call. Two ways to kill it: after some seconds;
# or by its own hand, in a save, before or after a call to the system, with half of what it was to write.
SERVER = """
import json, os, signal, sys, time
from bnengine.storage import atomic, checkpoint
from bnengine.cli import app, evaluate, main, train

def die():
    os.kill(os.getpid(), signal.SIGKILL)

def armed(save, call, after):
    state, replace_file = {"saves": 0, "inside": False}, checkpoint.replace_file

    def counted(path, chunks):
        state["saves"] += 1
        state["inside"] = state["saves"] == save
        replace_file(path, chunks)
        state["inside"] = False

    own = getattr(os, call)

    def fatal(first, *rest):
        if not state["inside"]:
            return own(first, *rest)
        if call == "write":
            own(first, rest[0][: len(rest[0]) // 2])
        elif after:
            own(first, *rest)
        die()

    checkpoint.replace_file = counted
    setattr(os, call, fatal)

for line in sys.stdin:
    order = json.loads(line)
    started = time.monotonic()
    child = os.fork()
    if child == 0:
        log = os.open(order["log"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(log, 1)
        os.dup2(log, 2)
        if "save" in order:
            armed(order["save"], order["call"], order["after"])
        main(order["arguments"])
    found = (0, 0)
    if "seconds" in order:
        time.sleep(order["seconds"])
        found = os.waitpid(child, os.WNOHANG)
        if found[0] == 0:
            os.kill(child, signal.SIGKILL)
    if found[0] == 0:
        found = os.waitpid(child, 0)
    print(json.dumps([os.waitstatus_to_exitcode(found[1]), time.monotonic() - started]), flush=True)
"""

Call = Callable[..., tuple[int, float]]
KILLED = -9


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of all runs."""
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def call(folder: Path) -> Iterator[Call]:
    """`call(arguments, ...)` runs the command line in a child and gives its exit code and how long it took."""
    if not hasattr(os, "fork"):
        missing("linux", "this system cannot fork a process")
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "BNENGINE_BACKEND": "numpy", "OPENBLAS_NUM_THREADS": "1"}
    command = [sys.executable, "-W", "ignore", "-c", SERVER]
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, cwd=folder, env=environment, **pipes) as server:
        assert server.stdin is not None
        assert server.stdout is not None

        def give(arguments: str, **order: Any) -> tuple[int, float]:
            line = json.dumps({"arguments": arguments.split(), "log": str(folder / "log"), **order})
            print(line, file=server.stdin, flush=True)
            code, seconds = json.loads(server.stdout.readline())
            return code, seconds

        yield give
        server.stdin.close()


@pytest.fixture(scope="module")
def train(call: Call, folder: Path) -> str:
    """The command of a run, without its --out; the run itself is in the folder `whole`."""
    rng = np.random.default_rng(0)
    codes = np.arange(120) % 3
    np.savez(folder / "blobs.npz", x=rng.normal(size=(120, 6)) + 3 * np.eye(3, 6)[codes], y=codes)
    command = f"train blobs.npz {OPTIONS}"
    code, _ = call(f"{command} --out whole")
    assert code == 0, (folder / "log").read_text()
    return command


def goes_on(call: Call, train: str, out: str, folder: Path) -> str:
    """Resume a killed run and compare it with the one that nothing happened to; where the resumed run said it stood."""
    code, _ = call(f"train --resume {out} --no-plot")
    said = (folder / "log").read_text()
    if code == 2 and ("no such folder" in said or "no config.toml" in said):  # killed before there was a run
        code, _ = call(f"{train} --out {out}")
    assert code == 0, said
    assert tensors(folder / out) == tensors(folder / "whole")
    assert metrics(folder / out) == metrics(folder / "whole")
    left = {path.name for path in (folder / out).iterdir()}
    assert left == {"config.toml", "metrics.jsonl", "model.safetensors"}, "a temporary file was left"
    return next((line for line in said.splitlines() if line.startswith("resumed")), "from the beginning")


@pytest.mark.slow
def test_kills_at_random_moments_change_no_bit(call: Call, train: str, folder: Path) -> None:
    seconds = min(call(f"{train} --out again{i}")[1] for i in range(3))
    moments = random.Random(SEED)
    killed = tried = 0
    places = set()
    while killed < AT_ANY_MOMENT:
        tried += 1
        assert tried < 10 * AT_ANY_MOMENT
        code, _ = call(f"{train} --out cut{tried}", seconds=moments.uniform(0, seconds))
        if code == KILLED:  # else the run was faster than the one that was timed
            killed += 1
            places.add(goes_on(call, train, f"cut{tried}", folder))
    assert len(places) > AT_ANY_MOMENT // 4, f"the kills met {len(places)} different places only"


CALLS = [("write", False), ("fsync", False), ("fsync", True), ("replace", False), ("replace", True)]


@pytest.mark.parametrize("seed", [0, pytest.param(1, marks=pytest.mark.slow)])
@pytest.mark.parametrize(("name", "after"), CALLS)
def test_a_kill_inside_a_save_changes_no_bit(
    call: Call, train: str, folder: Path, name: str, after: bool, seed: int
) -> None:
    save, out = random.Random(f"{SEED} {name} {after} {seed}").randint(1, SAVES), f"inside-{name}-{after}-{seed}"
    code, _ = call(f"{train} --out {out}", save=save, call=name, after=after)
    assert code == KILLED, f"save {save}"
    goes_on(call, train, out, folder)


@pytest.mark.slow
def test_a_run_killed_again_and_again_changes_no_bit(call: Call, train: str, folder: Path) -> None:
    moments = random.Random(SEED)
    command, killed = f"{train} --out over", 0
    while call(command, save=moments.randint(1, 16), call="fsync", after=True)[0] == KILLED:
        killed += 1
        command = "train --resume over --no-plot" if (folder / "over/config.toml").exists() else command
    assert killed >= 5
    goes_on(call, train, "over", folder)
