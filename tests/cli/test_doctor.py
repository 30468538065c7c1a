"""`bnengine doctor`: its findings of runs, and its exit codes."""

from pathlib import Path

import numpy as np

import bnengine as bn
from bnengine.layers import Activation, BatchNorm, Dense
from bnengine.storage import saving
from tests.cli.conftest import Command, tensors

TRAINED = ("--hidden", "8", "--epochs", "20", "--batch-size", "16", "--no-plot", "--quiet", "--out", "r")


def test_a_healthy_run_has_nothing_found(bnengine: Command, npz: str) -> None:
    bnengine("train", npz, *TRAINED)
    before = tensors(Path("r"))
    for data in ((), ("train",), ("validation",), (npz,)):
        result = bnengine("doctor", "r", *data)
        assert (result.code, result.err) == (0, "")
        assert "nothing found" in result.out
        assert ("not checked" in result.out) == (not data)
    assert bnengine("doctor", "r", "train", "--json").json == {
        "model": "r/model.safetensors", "data": "train", "findings": [],
    }  # fmt: skip
    assert tensors(Path("r")) == before


def test_warnings_have_a_cure_and_exit_with_0(bnengine: Command, npz: str) -> None:
    bnengine("train", npz, *TRAINED, "--batch-size", "35")
    result = bnengine("doctor", "r")
    assert result.code == 0
    assert "1 warning" in result.out
    assert "warning last-batch-small" in result.out
    assert "has 2 rows of 35" in result.out
    assert "cure: a batch size" in result.out
    assert "--batch-size 36" in result.out


def test_an_error_exits_with_3(bnengine: Command, npz: str) -> None:
    """After five steps of an average that keeps 99 %, 95 % of it is still its start."""
    bnengine("train", npz, *TRAINED, "--epochs", "1", "--bn-decay", "0.99")
    result = bnengine("doctor", "r")
    assert result.code == 3
    assert "error decay-slow, layer 1" in result.out
    assert "95.1%" in result.out
    assert "bnengine recalibrate" in result.out
    found = bnengine("doctor", "r", "--json")
    assert found.code == 3
    (finding,) = found.json["findings"]
    assert (finding["id"], finding["severity"], finding["layer"]) == ("decay-slow", "error", "1")
    assert finding["numbers"]["left"] == 0.99**5
    assert found.json["data"] is None


def test_numbers_that_are_not_finite_are_still_json(bnengine: Command, npz: str) -> None:
    bnengine("train", npz, *TRAINED)
    network = bn.load("r")
    network.named_statistics()["1.statistics"][2, 3] = np.nan
    saving.save("broken.safetensors", network)
    result = bnengine("doctor", "broken.safetensors", npz, "--json")
    assert result.code == 3
    assert [finding["id"] for finding in result.json["findings"]] == ["statistics-not-finite"]
    refused = bnengine("evaluate", "broken.safetensors", npz)
    line = "broken.safetensors: load_state_dict: 1.running_var must hold finite numbers of at least 0, got nan."
    assert (refused.code, line in refused.err) == (2, True), refused.err


def test_a_model_without_preprocessing_is_checked_without_data(bnengine: Command) -> None:
    layers = Dense(4, 8, bias=True), BatchNorm(8), Activation("relu"), Dense(8, 3)
    saving.save("fresh.safetensors", bn.Sequential(*layers, backend="numpy"))
    result = bnengine("doctor", "fresh.safetensors")
    assert result.code == 3
    assert [line for line in result.out.splitlines() if line and line[0] != " "] == [
        "fresh.safetensors: 1 error, 1 note; without DATA its inputs were not checked",
        "error statistics-never-collected, layer 1",
        "note cancelled-bias, layer 0",
    ]


def test_data_of_any_kind_are_checked(bnengine: Command, table: str) -> None:
    bnengine("train", table, "--target", "species", *TRAINED, "--norm", "none")
    result = bnengine("doctor", "r", "train")
    assert (result.code, result.out) == (0, "r/model.safetensors: nothing found; it has no BatchNorm\n")
    bnengine("train", table, "--target", "species", *TRAINED[:-1], "normed")
    lines = Path(table).read_text().splitlines()
    far = [",".join([f"{float(a) + 100}", b, c, d]) for a, b, _, c, d in (line.split(",") for line in lines[1:])]
    Path("far.csv").write_text("\n".join(["a,b,c,d", *far]) + "\n")  # without labels
    result = bnengine("doctor", "normed", "far.csv")
    assert result.code == 0, result.err
    assert "warning uncentred-inputs" in result.out
    assert "--scaling" in result.out
