"""`bnengine train --resume`: what it needs, and that it ends with the bits of a run that was never stopped."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from bnengine.training import Trainer
from bnengine.training.step import Step
from tests.cli.conftest import SMALL, Command, contents, metrics, tensors

VARIANTS = [
    "",
    "--dropout 0.2 --average 0.9 --schedule plateau --drop-every 1 --early-stopping 2",
    "--accumulate 2 --optimizer sgd --momentum 0.9 --warm-up 7",
]


def interrupt_at(step: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let Ctrl-C come after the step-th step of the next training, whose steps run one by one."""
    one = Step.next
    monkeypatch.setattr(Step, "next", lambda self, sizes, _: one(self, sizes))
    heed, seen = Trainer._heed, iter(range(1, 10**6))
    monkeypatch.setattr(Trainer, "_heed", lambda self, asked: heed(self, lambda: next(seen) == step or asked()))


@pytest.mark.parametrize("options", VARIANTS)
def test_an_interrupted_run_ends_with_the_same_bits(
    bnengine: Command, npz: str, monkeypatch: pytest.MonkeyPatch, options: str
) -> None:
    train = ("train", npz, *SMALL, *options.split(), "--out")
    assert bnengine(*train, "whole").code == 0
    for step in (1, 4, 6, 11):
        cut = f"cut-{step}"
        with monkeypatch.context() as patch:
            interrupt_at(step, patch)
            stopped = bnengine(*train, cut)
        assert stopped.code == 130
        assert f"Resume with: bnengine train --resume {cut}" in stopped.err
        resumed = bnengine("train", "--resume", cut, "--no-plot")
        assert resumed.code == 0, resumed.err
        assert tensors(cut) == tensors("whole"), cut
        assert metrics(cut) == metrics("whole"), cut


EARLY = "--schedule constant --learning-rate 0.5 --epochs 50 --early-stopping 2"


@pytest.mark.parametrize(
    ("options", "words"), [("", "3 of 3 epochs; nothing"), (EARLY, "has not improved for 2 epochs")]
)
def test_a_finished_run_says_so_and_does_not_change(done: Command, npz: str, options: str, words: str) -> None:
    first = done("train", npz, *SMALL, *options.split(), "--out", "r", "--json")
    before = contents("r")
    again = done("train", "--resume", "r", "--json", "--no-plot")
    assert "the run is finished" in again.err
    assert "nothing is left to train" in again.err
    assert words in again.err
    assert again.json == first.json
    assert contents("r") == before


def test_metrics_are_repaired_from_the_checkpoint(bnengine: Command, npz: str, monkeypatch: pytest.MonkeyPatch) -> None:
    bnengine("train", npz, *SMALL, "--out", "whole")
    Path("unsaved").mkdir()  # killed before its first checkpoint
    shutil.copy("whole/config.toml", "unsaved")
    Path("unsaved/metrics.jsonl").write_text('{"epoch": 0, "train_lo')
    for name in ("beyond", "missing"):
        with monkeypatch.context() as patch:
            interrupt_at(7, patch)
            assert bnengine("train", npz, *SMALL, "--out", name).code == 130
        assert len(metrics(name)) == 1
    with Path("beyond/metrics.jsonl").open("a") as file:
        file.write('{"epoch": 1, "train_loss": 9.0}\n{"epo')
    Path("missing/metrics.jsonl").write_text("")
    for name in ("unsaved", "beyond", "missing"):
        bnengine("train", "--resume", name, "--no-plot")
        assert metrics(name) == metrics("whole"), name
        assert tensors(name) == tensors("whole"), name


def test_a_run_resumes_on_another_backend(
    bnengine: Command, npz: str, require, monkeypatch: pytest.MonkeyPatch
) -> None:
    require("array_api_strict")
    whole = bnengine("train", npz, *SMALL, "--dtype", "float64", "--json", "--out", "whole").json
    with monkeypatch.context() as patch:
        interrupt_at(7, patch)
        bnengine("train", npz, *SMALL, "--dtype", "float64", "--out", "cut")
    found = bnengine("train", "--resume", "cut", "--backend", "array_api_strict", "--json", "--no-plot").json
    assert found["backend"] == "array_api_strict"
    assert found["valid_loss"] == pytest.approx(whole["valid_loss"], rel=1e-9)


def test_changed_data_or_networks_are_found_before_training(bnengine: Command, npz: str, blobs) -> None:
    x, y = blobs
    bnengine("train", npz, *SMALL, "--out", "r")
    config = Path("r/config.toml")
    text = config.read_text()
    config.write_text(text.replace('norm = "batch"', 'norm = "none"'))
    result = bnengine("train", "--resume", "r")
    assert result.code == 2
    assert "config.toml and the checkpoint describe different networks. Restore config.toml" in result.err
    config.write_text(text)
    for changed in ((x[:60], y[:60]), (x + 1, y), (x, y * 2)):
        np.savez(npz, x=changed[0], y=changed[1])
        result = bnengine("train", "--resume", "r")
        assert result.code == 2
        assert "are not those that the run was trained on: 90 samples" in result.err
        assert "Restore the old data, or begin a new run." in result.err


def test_a_flipped_byte_of_a_checkpoint_is_an_error(bnengine: Command, npz: str) -> None:
    bnengine("train", npz, *SMALL, "--out", "r")
    model = Path("r/model.safetensors")
    whole = model.read_bytes()
    for place in (0, 100, len(whole) // 2, len(whole) - 1):
        model.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        for command in (("train", "--resume", "r"), ("evaluate", "r", npz), ("predict", "r", npz, "-o", "a.csv")):
            result = bnengine(*command)
            assert result.code == 2
            assert "r/model.safetensors" in result.err
            assert "damaged" in result.err or "no safetensors file" in result.err
    model.write_bytes(whole[:-7])
    assert "truncated" in bnengine("train", "--resume", "r").err
