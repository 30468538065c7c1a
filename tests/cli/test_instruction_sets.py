"""Runs know which instructions their kernels use, and go on with others to the same bits."""

import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

from bnengine import fused
from bnengine.fused.cpu import _load
from tests.cli.conftest import Command, metrics, tensors
from tests.cpu.build import require_set
from tests.support import ROOT, missing

NETWORK = ("--hidden", "50,33", "--dropout", "0.2", "--clip-norm", "1")
OPTIONS = ("train", "digits", *NETWORK, "--epochs", "4", "--no-plot", "--quiet")

# The command line, with Ctrl-C behind so many steps, which are done one by one.
STOPPED = """
import sys
from bnengine.cli import main
from bnengine.training import Trainer
from bnengine.training.step import Step

one = Step.next
Step.next = lambda self, sizes, _: one(self, sizes)
heed, seen, last = Trainer._heed, iter(range(1, 10**6)), int(sys.argv[1])
Trainer._heed = lambda self, asked: heed(self, lambda: next(seen) == last or asked())
main(sys.argv[2:])
"""


@pytest.fixture
def sets() -> None:
    if reason := _load.available():
        missing("kernels", reason)
    for isa in ("v3", "v4"):
        require_set(isa)


def call(folder: Path, isa: str, *arguments: str, stop: int = 0) -> int:
    """The exit code of the command line for an instruction set, in a process of its own."""
    command = [sys.executable, "-c", STOPPED, str(stop), *arguments]
    variables = os.environ | {_load.ISA: isa, "PYTHONPATH": str(ROOT)}
    return subprocess.run(command, env=variables, cwd=folder, stderr=subprocess.DEVNULL, check=False).returncode


@pytest.mark.usefixtures("sets")
def test_a_run_begun_with_one_and_ended_with_the_other_has_the_bits_of_either_alone(tmp_path: Path) -> None:
    steps = 2 * 23 + 5  # of 23 an epoch: in the third one
    whole = tmp_path / "whole"
    assert call(tmp_path, "v4", *OPTIONS, "--out", "whole") == 0
    for first, then in (("v4", "v3"), ("v3", "v4")):
        assert call(tmp_path, first, *OPTIONS, "--out", first, stop=steps) == 130
        assert len(metrics(tmp_path / first)) == 2
        assert call(tmp_path, then, "train", "--resume", first, "--no-plot", "--quiet") == 0
        assert tensors(tmp_path / first) == tensors(whole)
        assert metrics(tmp_path / first) == metrics(whole)
    kernels = {name: made_by(tmp_path / name)["kernels"] for name in ("whole", "v4", "v3")}
    assert kernels == {"whole": "AVX-512 (x86-64-v4)", "v4": "AVX-512 (x86-64-v4)", "v3": "AVX2 (x86-64-v3)"}


def made_by(run: Path) -> Any:
    return tomllib.loads((run / "config.toml").read_text())["made_by"]


def test_a_run_and_info_tell_the_kernels_in_words(done: Command, npz: str) -> None:
    done("train", npz, "--hidden", "8", "--epochs", "1", "--no-plot", "--quiet", "--out", "r")
    words = fused.instruction_set() or "none, the references"
    assert made_by(Path("r"))["kernels"] == words
    assert done("info", "r", "--json").json["kernels"] == words
    assert f"begun with the kernels: {words}\n" in done("info", "r").out
    there = f"built, instruction set {words}, " if fused.instruction_set() else "references: "
    assert f"kernels: {there}" in done("info").out


def test_a_run_that_does_not_tell_is_shown_without(done: Command, npz: str) -> None:
    done("train", npz, "--hidden", "8", "--epochs", "1", "--no-plot", "--quiet", "--out", "r")
    for content in ("", "made_by = 3\n", "[made_by]\nnumpy = '2'\n", "[["):
        Path("r/config.toml").write_text(content)
        assert json.loads(done("info", "r", "--json").out)["kernels"] is None
        assert "begun with the kernels" not in done("info", "r").out


def test_a_run_on_another_library_does_not_tell(done: Command, npz: str, require: Any) -> None:
    require("array_api_strict")
    options = ("--hidden", "8", "--epochs", "1", "--no-plot", "--quiet", "--backend", "array_api_strict")
    done("train", npz, *options, "--out", "r")
    assert "kernels" not in made_by(Path("r"))


def test_every_instruction_set_has_words() -> None:
    assert set(_load.SETS) == set(fused._WORDS)
