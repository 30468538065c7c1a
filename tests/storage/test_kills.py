"""What is left when the writing process is killed, and when a real disk or a limit is at its end."""

import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from bnengine.storage import checkpoint
from tests.storage.cases import NEW, epoch, files
from tests.support import ROOT, missing

# A child writes both checkpoints in turn, for ever, slowly enough to be met at any step; or kills itself at one.
WRITER = """
import os, signal, sys, time
import numpy as np
from bnengine.storage import checkpoint

path, step, at = sys.argv[1], sys.argv[2], int(sys.argv[3])

def slow(name):
    call, calls = getattr(os, name), iter(range(1, 10**9))
    def patched(first, *rest):
        if name == step and next(calls) == at:
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(0.001)
        if name == "write":
            rest = (rest[0][:2000],)
        return call(first, *rest)
    return patched

for name in ("open", "write", "fsync", "replace", "close"):
    setattr(os, name, slow(name))
print("ready", flush=True)
while True:
    checkpoint.write(path, {"w": -np.arange(5000.0)}, {"epoch": 2})
    checkpoint.write(path, {"w": np.arange(5000.0)}, {"epoch": 1})
"""


def start(path: Path, step: str = "none", at: int = 0) -> subprocess.Popen[bytes]:
    child = subprocess.Popen([sys.executable, "-c", WRITER, path, step, str(at)], cwd=ROOT, stdout=subprocess.PIPE)
    assert child.stdout is not None
    assert child.stdout.readline() == b"ready\n"
    return child


def wait_for_death(child: subprocess.Popen[bytes]) -> None:
    with child:
        assert child.wait(timeout=60) == -signal.SIGKILL


@pytest.mark.parametrize(
    ("step", "at", "expected", "left"),
    # The first os.open and the second os.fsync and os.close are the folder's.
    [
        ("open", 2, 1, 0),
        ("write", 1, 1, 1),
        ("write", 10, 1, 1),
        ("fsync", 1, 1, 1),
        ("replace", 1, 1, 1),
        ("fsync", 2, 2, 0),
        ("close", 2, 2, 0),
    ],
)
def test_a_kill_at_a_step_leaves_one_whole_file(path: Path, step: str, at: int, expected: int, left: int) -> None:
    wait_for_death(start(path, step, at))
    assert epoch(path) == expected
    assert len(files(path)) == 1 + left

    checkpoint.write(path, NEW, {"epoch": 2})
    assert files(path) == [path.name]
    assert epoch(path) == 2


def test_kills_at_random_moments_leave_one_whole_file(path: Path) -> None:
    moments = random.Random(0)
    for _ in range(5):
        child = start(path)
        time.sleep(moments.uniform(0, 0.1))
        child.kill()
        wait_for_death(child)
        assert epoch(path) in (1, 2)
        assert len(files(path)) <= 2
    checkpoint.write(path, NEW, {"epoch": 2})
    assert files(path) == [path.name]


LIMITED = """
import resource, signal, sys
import numpy as np
from bnengine.storage import checkpoint
from bnengine.errors import CheckpointError

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000,) * 2)
try:
    checkpoint.write(sys.argv[1], {"w": -np.arange(5000.0)}, {"epoch": 2})
except CheckpointError as error:
    print(error)
"""

MOUNTED = """
import os, subprocess, sys
import numpy as np
from bnengine.storage import checkpoint
from bnengine.errors import CheckpointError

folder = sys.argv[1]
path = os.path.join(folder, "model")
checkpoint.write(path, {"w": np.arange(5000.0)}, {"epoch": 1})
for command in ("true", "mount -o remount,ro,size=64k none " + folder):
    subprocess.run(command.split(), check=True)
    try:
        checkpoint.write(path, {"w": -np.arange(5000.0)}, {"epoch": 2})
    except CheckpointError as error:
        print(error)
    assert checkpoint.read(path).metadata == {"epoch": 1}
    assert os.listdir(folder) == ["model"]
"""


def test_the_old_file_stays_where_a_limit_on_file_size_is_met(path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, path], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True
    )
    assert "Raise ulimit -f or name another disk. The old checkpoint is intact" in done.stdout
    assert epoch(path) == 1
    assert files(path) == [path.name]


def test_the_old_file_stays_on_a_full_or_read_only_disk(tmp_path: Path) -> None:
    # In a private mount namespace, hence seen by no other process and gone with this one.
    mount = 'mount -t tmpfs -o size=64k none "$1"'
    spaces = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c"]
    try:
        tried = subprocess.run(
            [*spaces, mount, "sh", tmp_path], capture_output=True, text=True, timeout=60, check=False
        )
    except FileNotFoundError:
        missing("linux", "there is no unshare command to mount a small disk with")
    if tried.returncode:
        missing("linux", f"a small disk cannot be mounted here: {tried.stderr.strip()}")
    done = subprocess.run(
        [*spaces, f'{mount} && exec "$2" -c "$3" "$1"', "sh", tmp_path, sys.executable, MOUNTED],
        cwd=ROOT, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    full, read_only = done.stdout.splitlines()
    assert "the disk is full. Free some space or name a file on another disk. The old checkpoint is intact" in full
    assert "the disk is mounted read-only" in read_only
