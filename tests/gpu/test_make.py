"""What `make gpu` calls: the Python that it is given, with the folder that it is given, and nothing before it."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.support import ROOT, missing


@pytest.fixture
def python(tmp_path: Path) -> Path:
    """A Python that says what it is called with."""
    if shutil.which("make") is None:
        missing("make", "make is not installed")
    program = tmp_path / "python"
    program.write_text('#!/bin/sh\necho "$PYTHONPATH" "$*"\n')
    program.chmod(0o755)
    return program


def make(*arguments: str, **variables: str) -> str:
    left_out = ("MAKEFLAGS", "MAKELEVEL", "MFLAGS", "OUT", "GPU_ARGS", "GPU_PYTHON", "GPU_PYTHONPATH", "PYTHONPATH")
    environment = {k: v for k, v in os.environ.items() if k not in left_out} | variables
    command = ["make", "--silent", *arguments]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True).stdout.strip()


@pytest.mark.parametrize(("target", "what"), [("gpu", "all"), ("gpu-verify", "verify"), ("gpu-bench", "bench")])
def test_a_gpu_target_runs_with_the_given_python(target, what, python):
    assert make(target, f"GPU_PYTHON={python}") == f".:: -m tests.gpu {what}"
    given = make(
        target, f"GPU_PYTHON={python}", "GPU_PYTHONPATH=/some/wheels", "OUT=/some/results", "GPU_ARGS=--dry-run"
    )
    assert given == f".:/some/wheels: -m tests.gpu {what} --out /some/results --dry-run"


def test_what_the_environment_says_counts_too(python):
    given = make("gpu-verify", f"GPU_PYTHON={python}", OUT="/results", PYTHONPATH="/own")
    assert given == ".::/own -m tests.gpu verify --out /results"


def test_the_help_has_the_gpu_targets():
    text = make("help")
    assert "make gpu " in text
    assert "gpu-verify" in text
    assert "gpu-bench" in text
