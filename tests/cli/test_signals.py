"""Ctrl-C, a terminating signal and a reader that goes away: messages, files and exit codes."""

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest

from tests.cli.conftest import SMALL, Command, metrics, tensors
from tests.support import ROOT

# The real command, with steps one by one, and long enough for a signal to meet one in the middle.
SLOW = """
import sys, time
from bnengine.training import Trainer
from bnengine.training.step import Step

one = Step.next
Step.next = lambda self, sizes, _: one(self, sizes)
run, steps, seconds = Trainer._run, iter(range(10**6)), float(sys.argv.pop(1))

def slow(self, batches):
    if next(steps) == 4:
        print("now", flush=True)
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            time.sleep(0.01)
    return run(self, batches)

Trainer._run = slow
from bnengine.cli import main
main()
"""
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT), "BNENGINE_BACKEND": "numpy", "OPENBLAS_NUM_THREADS": "1"}


def start(folder: Path, seconds: float, *arguments: str, **options) -> "subprocess.Popen[str]":
    """A training that is in the middle of its fifth step."""
    command = [sys.executable, "-c", SLOW, str(seconds), *arguments, "--quiet", "--out", "cut"]
    process = subprocess.Popen(
        command, cwd=folder, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options
    )
    assert process.stdout is not None
    if process.stdout.readline() != "now\n":
        pytest.fail(process.communicate(timeout=60)[1])
    return process


def ended(process: "subprocess.Popen[str]") -> tuple[int, str]:
    _, err = process.communicate(timeout=60)
    return process.returncode, err


def interrupt_twice(process: "subprocess.Popen[str]") -> None:
    """Two Ctrl-C. Signals of one number do not queue: where the second one came too soon to count, one more."""
    process.send_signal(signal.SIGINT)
    time.sleep(0.3)
    while process.poll() is None:
        process.send_signal(signal.SIGINT)
        with suppress(subprocess.TimeoutExpired):
            process.wait(20)


@pytest.mark.parametrize(("sent", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_saves_and_the_run_resumes_to_the_same_bits(
    done: Command, npz: str, tmp_path: Path, sent: signal.Signals, code: int
) -> None:
    done("train", npz, *SMALL, "--out", "whole")
    process = start(tmp_path, 1.0, "train", npz, *SMALL)
    process.send_signal(sent)
    message = (
        "train: interrupted after step 5 of epoch 1; the checkpoint is cut/model.safetensors. "
        "Resume with: bnengine train --resume cut\n"
    )
    assert ended(process) == (code, message)
    assert "in epoch 1 of 3, after step 5" in done("train", "--resume", "cut", "--no-plot").out
    assert tensors(Path("cut")) == tensors(Path("whole"))
    assert metrics(Path("cut")) == metrics(Path("whole"))


def test_a_second_ctrl_c_does_not_wait_for_the_step(npz: str, tmp_path: Path) -> None:
    process = start(tmp_path, 600, "train", npz, *SMALL, "--checkpoint-every", "2")
    interrupt_twice(process)
    code, err = ended(process)
    assert code == 130
    assert "train: interrupted at once; the last checkpoint is cut/model.safetensors. Resume with" in err
    assert "Traceback" not in err


def test_ctrl_c_before_the_first_checkpoint_says_so(npz: str, tmp_path: Path, done: Command) -> None:
    process = start(tmp_path, 600, "train", npz, *SMALL)
    interrupt_twice(process)
    code, err = ended(process)
    assert code == 130
    assert "train: interrupted before the first checkpoint. Resume with: bnengine train --resume cut" in err
    assert done("train", "--resume", "cut", "--no-plot").code == 0


def test_sigterm_ends_a_run_that_ignores_ctrl_c(npz: str, tmp_path: Path) -> None:
    def ignore() -> None:
        signal.signal(signal.SIGINT, signal.SIG_IGN)

    process = start(tmp_path, 600, "train", npz, *SMALL, "--checkpoint-every", "2", preexec_fn=ignore)
    process.send_signal(signal.SIGINT)
    process.send_signal(signal.SIGTERM)
    code, err = ended(process)
    assert code == 143
    assert "the last checkpoint is cut/model.safetensors" in err


@pytest.mark.parametrize(
    "arguments", ["evaluate r blobs.npz", "info r", "train blobs.npz --no-plot --epochs 1", "train -h"]
)
def test_a_closed_reader_ends_the_command_silently(done: Command, npz: str, tmp_path: Path, arguments: str) -> None:
    done("train", npz, *SMALL, "--out", "r")
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-m", "bnengine", *arguments.split()]
    finished = subprocess.run(
        command,
        cwd=tmp_path,
        env=ENVIRONMENT,
        stdout=writer,
        stderr=subprocess.PIPE,
        text=True,
        timeout=60,
        check=False,
    )
    os.close(writer)
    assert finished.returncode == 141
    assert "Traceback" not in finished.stderr
    assert "Broken" not in finished.stderr
