"""`bnengine train --resume`: what it needs, and that it ends with the bits of a run that was never stopped."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from bnengine.training import Trainer
from bnengine.training.step import Step
from tests.cli.conftest import SMALL, Command, metrics, tensors

STATEFUL = (
    "--dropout",
    "0.2",
    "--average",
    "0.9",
    "--schedule",
    "plateau",
    "--drop-every",
    "1",
    "--early-stopping",
    "2",
)
VARIANTS = [(), STATEFUL, ("--accumulate", "2", "--optimizer", "sgd", "--momentum", "0.9", "--warm-up", "7")]


def interrupt_at(step: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let Ctrl-C come behind the step-th step of the next training, whose steps are done one by one."""
    one = Step.next
    monkeypatch.setattr(Step, "next", lambda self, sizes, _: one(self, sizes))
    heed, seen = Trainer._heed, iter(range(1, 10**6))
    monkeypatch.setattr(Trainer, "_heed", lambda self, asked: heed(self, lambda: next(seen) == step or asked()))


@pytest.mark.parametrize("options", VARIANTS)
@pytest.mark.parametrize("step", [1, 4, 6, 11])
def test_an_interrupted_run_ends_with_the_same_bits(
    bnengine: Command, npz: str, monkeypatch: pytest.MonkeyPatch, options: tuple[str, ...], step: int
) -> None:
    assert bnengine("train", npz, *SMALL, *options, "--out", "whole").code == 0
    with monkeypatch.context() as patch:
        interrupt_at(step, patch)
        stopped = bnengine("train", npz, *SMALL, *options, "--out", "cut")
    assert stopped.code == 130
    assert "go on with: bnengine train --resume cut" in stopped.err
    resumed = bnengine("train", "--resume", "cut", "--no-plot")
    assert resumed.code == 0, resumed.err
    assert tensors(Path("cut")) == tensors(Path("whole"))
    assert metrics(Path("cut")) == metrics(Path("whole"))


def test_a_finished_run_says_so_and_stays_as_it_is(done: Command, npz: str) -> None:
    first = done("train", npz, *SMALL, "--out", "r", "--json")
    before = {p.name: p.read_bytes() for p in Path("r").iterdir()}
    again = done("train", "--resume", "r", "--json", "--no-plot")
    assert "the run is finished: 3 of 3 epochs; nothing is left to train" in again.err
    assert again.json == first.json
    assert {p.name: p.read_bytes() for p in Path("r").iterdir()} == before


def test_a_run_that_stopped_early_is_finished(done: Command, npz: str) -> None:
    options = ("--schedule", "constant", "--learning-rate", "0.5", "--epochs", "50", "--early-stopping", "2")
    first = done("train", npz, "--hidden", "8", *options, "--no-plot", "--json", "--out", "r")
    before = tensors(Path("r"))
    again = done("train", "--resume", "r", "--json", "--no-plot")
    assert "has not improved for 2 epochs" in again.err
    assert "nothing is left to train" in again.err
    assert again.json == first.json
    assert tensors(Path("r")) == before


def test_a_run_killed_before_its_first_checkpoint_starts_from_the_beginning(done: Command, npz: str) -> None:
    done("train", npz, *SMALL, "--out", "whole")
    Path("cut").mkdir()
    shutil.copy("whole/config.toml", "cut")
    Path("cut/metrics.jsonl").write_text('{"epoch": 0, "train_lo')
    done("train", "--resume", "cut", "--no-plot")
    assert tensors(Path("cut")) == tensors(Path("whole"))
    assert metrics(Path("cut")) == metrics(Path("whole"))


def test_lines_beyond_the_checkpoint_are_dropped_and_missing_ones_written(
    bnengine: Command, npz: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    bnengine("train", npz, *SMALL, "--out", "whole")
    for name, spoil in {
        "beyond": lambda lines: [*lines, '{"epoch": 1, "train_loss": 9.0}', '{"epo'],
        "missing": lambda lines: [],  # noqa: ARG005
    }.items():
        with monkeypatch.context() as patch:
            interrupt_at(7, patch)
            assert bnengine("train", npz, *SMALL, "--out", name).code == 130
        file = Path(name, "metrics.jsonl")
        lines = file.read_text().splitlines()
        assert len(lines) == 1
        file.write_text("\n".join(spoil(lines)))
        bnengine("train", "--resume", name, "--no-plot")
        assert metrics(Path(name)) == metrics(Path("whole"))


def test_a_run_may_go_on_with_another_backend(
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


@pytest.mark.parametrize(
    "given",
    [("digits",), ("--epochs", "9"), ("--config", "c.toml"), ("--out", "x"), ("--seed", "1", "--hidden", "4")],
)
def test_what_would_change_the_training_cannot_stand_beside_resume(
    bnengine: Command, npz: str, given: tuple[str, ...]
) -> None:
    bnengine("train", npz, *SMALL, "--out", "r")
    result = bnengine("train", "--resume", "r", *given)
    assert result.code == 2
    assert result.err.startswith("train: ")
    assert "cannot be given beside --resume" in result.err
    names = ["DATA"] if given == ("digits",) else [g for g in given if g.startswith("--")]
    assert all(name in result.err for name in names)


def test_data_that_have_changed_are_found_before_anything_is_trained(bnengine: Command, npz: str, blobs) -> None:
    x, y = blobs
    bnengine("train", npz, *SMALL, "--out", "r")
    for changed in ((x[:60], y[:60]), (x + 1, y), (x, y * 2)):
        np.savez(npz, x=changed[0], y=changed[1])
        result = bnengine("train", "--resume", "r")
        assert result.code == 2
        assert "are not those that the run was trained on" in result.err
        assert "put the old data back, or begin a new run" in result.err


def test_a_config_that_was_changed_into_another_network_is_an_error(bnengine: Command, npz: str) -> None:
    bnengine("train", npz, *SMALL, "--out", "r")
    config = Path("r/config.toml")
    config.write_text(config.read_text().replace('norm = "batch"', 'norm = "none"'))
    result = bnengine("train", "--resume", "r")
    assert result.code == 2
    assert "describes another network than the checkpoint holds" in result.err


def test_every_flipped_byte_of_a_checkpoint_is_an_error_with_the_cure(bnengine: Command, npz: str) -> None:
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


def test_a_network_saved_without_its_training_cannot_go_on(bnengine: Command, npz: str) -> None:
    import bnengine as bn

    bnengine("train", npz, *SMALL, "--out", "r")
    bn.save("r", bn.load("r"))
    result = bnengine("train", "--resume", "r")
    assert result.code == 2
    assert "holds a network without its training" in result.err


def test_metrics_are_json_lines_of_every_epoch(bnengine: Command, npz: str) -> None:
    bnengine("train", npz, *SMALL, "--out", "r")
    records = [json.loads(line) for line in Path("r/metrics.jsonl").read_text().splitlines()]
    needed = {"epoch", "steps", "learning_rate", "train_loss", "train_accuracy", "valid_loss", "valid_accuracy"}
    assert all(needed | {"seconds", "samples_per_second"} <= set(record) for record in records)
    assert [r["steps"] for r in records] == [5, 10, 15]
