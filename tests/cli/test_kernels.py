"""--kernels of train, evaluate and predict."""

import tomllib
from pathlib import Path
from typing import Any

import pytest

from bnengine import fused
from bnengine.ops import using
from tests.cli.conftest import SMALL, Command, tensors


def test_a_run_on_references_says_so_and_resumes_on_them(done: Command, npz: str) -> None:
    options = ("train", npz, *SMALL, "--kernels", "reference")
    assert "kernels   references, as --kernels says\n" in done(*options, "--out", "r").out
    config = tomllib.loads(Path("r/config.toml").read_text())
    assert (config["run"]["kernels"], config["made_by"]["kernels"]) == ("reference", "none, the references")
    assert "kernels   references, as --kernels says\n" in done("train", "--resume", "r", "--no-plot").out
    assert "begun with the kernels: none, the references\n" in done("info", "r").out
    with using("reference"):
        done("train", npz, *SMALL, "--out", "auto")
    assert tensors(Path("r")) == tensors(Path("auto"))


def test_the_header_says_which_kernels_run_by_default(done: Command, npz: str) -> None:
    expected = f"native, {fused.instruction_set()}" if fused.instruction_set() else "references: "
    assert f"kernels   {expected}" in done("train", npz, *SMALL).out


def test_fused_kernels_that_are_missing_end_the_command(bnengine: Command, npz: str, require: Any) -> None:
    require("array_api_strict")
    result = bnengine("train", npz, *SMALL, "--backend", "array_api_strict", "--kernels", "fused", "--out", "r")
    assert result.code != 0
    assert "kernels are to be 'fused', but " in result.err
    assert not Path("r").exists()


def test_evaluate_and_predict_take_references(done: Command, npz: str, monkeypatch: pytest.MonkeyPatch) -> None:
    done("train", npz, *SMALL, "--out", "r")
    expected = done("evaluate", "r", npz, "--json").json["accuracy"]
    monkeypatch.setattr("bnengine.fused.cpu.dense.affine", None)  # no launcher may be called
    assert done("evaluate", "r", npz, "--json", "--kernels", "reference").json["accuracy"] == expected
    done("predict", "r", npz, "-o", "answers.csv", "--kernels", "reference")
