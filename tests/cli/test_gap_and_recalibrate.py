"""`bnengine gap` and `bnengine recalibrate`, called as a user calls them."""

from pathlib import Path

import numpy as np
import pytest

import bnengine as bn
from bnengine.storage import saving
from tests.cli.conftest import SMALL, Command, tensors

# After 92 steps a decay of 0.995 still keeps two thirds of the start.
SLOW = ("digits", "--hidden", "32,32", "--epochs", "4", "--bn-decay", "0.995", "--no-plot", "--quiet")
HEALTHY = ("digits", "--hidden", "32,32", "--epochs", "6", "--no-plot", "--quiet")


def test_gap_names_statistics_that_are_not_converged(done: Command) -> None:
    done("train", *SLOW, "--out", "r")
    found = done("gap", "r", "validation", "--json").json
    assert found["cause"] == "not converged"
    assert (found["data"], found["training"]) == ("359 rows of digits", "1,438 rows of digits")
    assert [layer["name"] for layer in found["layers"]] == ["1", "4"]
    assert [layer["steps"] for layer in found["layers"]] == [4 * 23] * 2  # an epoch's last batch has 30 rows
    evaluated = done("evaluate", "r", "validation", "--json").json
    (by_running,) = [row for row in found["scores"] if (row["rows"], row["statistics"]) == ("data", "running")]
    assert by_running["accuracy"] == evaluated["accuracy"]
    assert by_running["loss"] == pytest.approx(evaluated["loss"], rel=1e-6)
    text = done("gap", "r", "validation").out
    assert "cause: not converged" in text
    assert "cure:  recalibrate" in text


def test_gap_tells_healthy_runs_from_shifted_data(done: Command, tmp_path: Path) -> None:
    done("train", *HEALTHY, "--out", "r")
    assert done("gap", "r", "validation", "--json").json["cause"] == "none"
    assert done("gap", "r", "train", "--json").json["cause"] == "none"
    digits = bn.data.load_digits()
    np.savez(tmp_path / "dark.npz", x=np.asarray(digits.x)[:500] // 3, y=np.asarray(digits.y)[:500])
    assert done("gap", "r", "dark.npz", "--json").json["cause"] == "data shift"
    np.savez(tmp_path / "unlabeled.npz", x=np.asarray(digits.x)[:500] // 3)
    found = done("gap", "r", "unlabeled.npz", "--json").json
    assert found["cause"] == "data shift"
    assert {row["rows"] for row in found["scores"]} == {"training"}


def test_recalibrate_writes_a_new_checkpoint(done: Command) -> None:
    done("train", *SLOW, "--out", "r")
    before = tensors(Path("r"))
    found = done("recalibrate", "r", "train", "--json").json
    assert tensors(Path("r")) == before
    new = Path("r/recalibrated.safetensors")
    assert found["written"] == str(new)
    for part in ("train", "validation"):
        for when, model in (("before", "r"), ("after", str(new))):
            assert found[when][part]["accuracy"] == done("evaluate", model, part, "--json").json["accuracy"]
    assert found["after"]["train"]["accuracy"] > found["before"]["train"]["accuracy"] + 0.02
    assert done("doctor", str(new), "train", "--json").json["findings"] == []
    after = done("gap", str(new), "validation", "--json").json
    assert after["cause"] == "none"
    assert after["layers"][0]["steps"] == pytest.approx(1438 / 64)  # the count is that of the rows, not of 92 steps
    old, given = saving.read("r"), saving.read(new)
    changed = {name for name in old.state if not np.array_equal(old.state[name], given.state[name])}
    assert changed == {f"{place}.running_{kind}" for place in (1, 4) for kind in ("count", "mean", "var")}
    assert given.training == old.training
    assert all(np.array_equal(old.arrays[name], given.arrays[name]) for name in old.arrays)


def test_recalibrate_changes_the_statistics_of_averaged_weights(done: Command) -> None:
    done("train", *SLOW, "--average", "0.9", "--out", "r")
    found = done("recalibrate", "r", "train", "-o", "new.safetensors", "--json").json
    assert done("evaluate", "new.safetensors", "digits", "--json").json["loss"] < 2
    old, new = saving.read("r"), saving.read("new.safetensors")
    assert all(np.array_equal(old.state[name], new.state[name]) for name in old.state)
    changed = {name for name in old.arrays if not np.array_equal(old.arrays[name], new.arrays[name])}
    assert changed == {
        f"step.average.{place}.running_{kind}" for place in (1, 4) for kind in ("count", "mean", "var")
    }  # fmt: skip
    loaded = bn.load("new.safetensors")
    digits = bn.data.load_digits()
    accuracy = np.mean(bn.predict(loaded, np.asarray(digits.x)).labels == np.asarray(digits.y))
    assert accuracy >= found["after"]["validation"]["accuracy"] - 0.05


def test_a_training_resumes_from_recalibrated_statistics(done: Command, blobs) -> None:
    data = (blobs[0].astype("float32"), np.arange(90) % 3)
    network = bn.Sequential(bn.Dense(4, 8), bn.BatchNorm(8), bn.Activation("relu"), bn.Dense(8, 3))
    network.preprocessing = bn.Preprocessing.fit(bn.data.Dataset(x=blobs[0], y=blobs[1]), scaling="none")
    trainer = bn.Trainer(network, "adam", progress="quiet")
    trainer.fit(data, epochs=2)
    trainer.save("old.safetensors")
    np.savez("blobs.npz", x=blobs[0], y=blobs[1])
    done("recalibrate", "old.safetensors", "blobs.npz", "-o", "new.safetensors")
    saved = saving.read("new.safetensors")
    other = bn.load("new.safetensors")
    resumed = bn.Trainer(other, "adam", progress="quiet")
    assert saved.training is not None
    resumed.load_state(saved.arrays, saved.training)
    resumed.fit(data, epochs=3)
    trainer.fit(data, epochs=3)
    np.testing.assert_array_equal(other.parameters.array, network.parameters.array)
    assert other.state_dict()["1.running_count"][0] == 90 + 90
    assert network.state_dict()["1.running_count"][0] == 3 * 90


def test_recalibrate_takes_data_without_targets(done: Command, npz: str, tmp_path: Path) -> None:
    done("train", npz, *SMALL, "--quiet", "--out", "r")
    with np.load(npz) as arrays:
        np.savez(tmp_path / "new.npz", x=arrays["x"])
    assert done("recalibrate", "r", "new.npz").out == (
        "r/recalibrated.safetensors: r/model.safetensors with the exact statistics of 90 rows of new.npz\n"
    )
    _, columns, *rows = done("recalibrate", "r", npz, "--force").out.splitlines()
    assert columns.split() == ["rows", "figure", "before", "after"]
    assert [row.split()[:2] for row in rows] == [[npz, "loss"], [npz, "accuracy"]]
