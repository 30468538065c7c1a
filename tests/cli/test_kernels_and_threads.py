"""Options of the machine: which kernels run, on how many threads, and where data are. They change no bit."""

import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

from bnengine import fused, threads
from bnengine.fused.cpu import _load
from bnengine.ops import using
from tests.cli.conftest import SMALL, Command, metrics, tensors
from tests.cpu.build import require_set
from tests.support import ROOT, missing

# The command line, with Ctrl-C after a number of steps, which run one by one.
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


def config_of(run: str | Path) -> Any:
    return tomllib.loads(Path(run, "config.toml").read_text())


@pytest.mark.parametrize("option", ["--resident yes", "--resident no", "--graph no", "--checkpoint-every 2"])
def test_options_of_device_and_checkpoints_change_no_bit(done: Command, npz: str, option: str) -> None:
    done("train", npz, *SMALL, "--out", "plain")
    done("train", npz, *SMALL, *option.split(), "--out", "other")
    assert tensors("plain") == tensors("other")
    name, value = option.removeprefix("--").replace("-", "_").split()
    assert str(config_of("other")["run"][name]) == value


@pytest.fixture
def restored_threads() -> Any:
    before = threads.get()
    yield
    threads.set(before)


@pytest.mark.usefixtures("restored_threads")
@pytest.mark.skipif(fused.native().available() is not None, reason="without native kernels there is one thread")
def test_threads_change_no_bit(done: Command, npz: str) -> None:
    for n in (1, 3):
        done("train", npz, *SMALL, "--threads", str(n), "--out", f"on-{n}")
        assert threads.get() == config_of(f"on-{n}")["run"]["threads"] == n
    assert tensors("on-1") == tensors("on-3")
    done("train", "--resume", "on-3", "--threads", "2")
    assert threads.get() == 2
    done("train", npz, *SMALL, "--out", "default")
    assert threads.get() == 2
    assert "threads" not in config_of("default")["run"]


def test_a_run_on_references_says_so_and_resumes_on_them(done: Command, npz: str) -> None:
    line = "kernels   references, by --kernels reference\n"
    assert line in done("train", npz, *SMALL, "--kernels", "reference", "--out", "r").out
    config = config_of("r")
    assert (config["run"]["kernels"], config["made_by"]["kernels"]) == ("reference", "none, the references")
    assert line in done("train", "--resume", "r", "--no-plot").out
    assert "began with the kernels: none, the references\n" in done("info", "r").out
    with using("reference"):
        done("train", npz, *SMALL, "--out", "auto")
    assert tensors("r") == tensors("auto")


def test_evaluate_and_predict_take_references(done: Command, npz: str, monkeypatch: pytest.MonkeyPatch) -> None:
    done("train", npz, *SMALL, "--out", "r")
    expected = done("evaluate", "r", npz, "--json").json["accuracy"]
    monkeypatch.setattr("bnengine.fused.cpu.dense.affine", None)  # no launcher may be called
    assert done("evaluate", "r", npz, "--json", "--kernels", "reference").json["accuracy"] == expected
    done("predict", "r", npz, "-o", "answers.csv", "--kernels", "reference")


def test_a_run_records_its_kernels_and_info_shows_them(done: Command, npz: str, require: Any) -> None:
    words = fused.instruction_set() or "none, the references"
    native = fused.instruction_set() is not None
    out = done("train", npz, *SMALL, "--out", "r").out
    assert f"kernels   {f'native, {words}' if native else 'references: '}" in out
    assert config_of("r")["made_by"]["kernels"] == done("info", "r", "--json").json["kernels"] == words
    assert f"began with the kernels: {words}\n" in done("info", "r").out
    assert f"kernels: {f'built, instruction set {words}, ' if native else 'references: '}" in done("info").out
    for content in ("", "made_by = 3\n", "[made_by]\nnumpy = '2'\n", "[["):
        Path("r/config.toml").write_text(content)
        assert json.loads(done("info", "r", "--json").out)["kernels"] is None
        assert "began with the kernels" not in done("info", "r").out
    require("array_api_strict")
    done("train", npz, *SMALL, "--backend", "array_api_strict", "--out", "other")
    assert "kernels" not in config_of("other")["made_by"]


def test_a_run_may_change_its_instruction_set(tmp_path: Path) -> None:
    if reason := _load.available():
        missing("kernels", reason)
    for isa in ("v3", "v4"):
        require_set(isa)

    def call(isa: str, arguments: str, stop: int = 0) -> int:
        command = [sys.executable, "-c", STOPPED, str(stop), *arguments.split()]
        variables = os.environ | {_load.ISA: isa, "PYTHONPATH": str(ROOT)}
        return subprocess.run(command, env=variables, cwd=tmp_path, stderr=subprocess.DEVNULL, check=False).returncode

    train = "train digits --hidden 50,33 --dropout 0.2 --clip-norm 1 --epochs 4 --no-plot --quiet"
    assert call("v4", f"{train} --out whole") == 0
    for first, then in (("v4", "v3"), ("v3", "v4")):
        assert call(first, f"{train} --out {first}", stop=2 * 23 + 5) == 130  # of 23 steps an epoch: in the third one
        assert len(metrics(tmp_path / first)) == 2
        assert call(then, f"train --resume {first} --no-plot --quiet") == 0
        assert tensors(tmp_path / first) == tensors(tmp_path / "whole")
        assert metrics(tmp_path / first) == metrics(tmp_path / "whole")
    kernels = {name: config_of(tmp_path / name)["made_by"]["kernels"] for name in ("whole", "v4", "v3")}
    assert kernels == {"whole": "AVX-512 (x86-64-v4)", "v4": "AVX-512 (x86-64-v4)", "v3": "AVX2 (x86-64-v3)"}
