"""The guide on changing the math works, on a copy of the package."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import ROOT

GUIDE = (ROOT / "examples" / "guides" / "change_the_maths.md").read_text(encoding="utf-8")
TRAIN, TEST, _ = re.findall(r"```sh\n(.*?)\n```", GUIDE)
BEFORE, AFTER = (re.search(rf"^{re.escape(sign)}(    .*)$", GUIDE, re.MULTILINE).group(1) for sign in "-+")

# An editable installation finds the checkout before any path is searched.
LAUNCH = """
import runpy, sys
sys.meta_path[:] = [finder for finder in sys.meta_path if not type(finder).__module__.startswith("_editable")]
sys.argv = sys.argv[1:]
runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
"""


def run(command: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run a command of the guide in a checkout, with that checkout's package."""
    words = shlex.split(command)
    arguments = words if words[0] == "bnengine" else words[2:]  # python -m pytest ...
    environment = {**os.environ, "PYTHONPATH": str(folder), "BNENGINE_BACKEND": "numpy"}
    return subprocess.run(
        [sys.executable, "-c", LAUNCH, *arguments],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
    )


def accuracy(folder: Path) -> float:
    """Run the guide's training and return its validation accuracy."""
    done = run(f"{TRAIN} --no-plot", folder)
    assert done.returncode == 0, done.stderr
    assert "kernels   references, by --kernels reference\n" in done.stdout
    return float(re.search(r"validation accuracy (\S+)", done.stdout).group(1))


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A copy of the package and of the tests of its ops."""
    ignored = shutil.ignore_patterns("__pycache__", "*.so")
    shutil.copytree(ROOT / "bnengine", tmp_path / "bnengine", ignore=ignored)
    shutil.copytree(ROOT / "tests" / "ops", tmp_path / "tests" / "ops", ignore=ignored)
    for name in ("pyproject.toml", "tests/__init__.py", "tests/conftest.py", "tests/support.py"):
        shutil.copy(ROOT / name, tmp_path / name)
    return tmp_path


def test_a_changed_sign_ruins_training_and_a_test_names_the_op(checkout: Path) -> None:
    assert accuracy(checkout) > 0.9
    file = checkout / "bnengine" / "ops" / "batch_norm.py"
    text = file.read_text(encoding="utf-8")
    assert text.count(f"{BEFORE}\n") == 1
    file.write_text(text.replace(BEFORE, AFTER), encoding="utf-8")
    assert accuracy(checkout) < 0.5
    done = run(f"{TEST} -p no:cacheprovider", checkout)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "AssertionError: normalize_backward: the gradient of argument [0] " in done.stdout
    assert "The formula is in bnengine.ops.batch_norm." in done.stdout
