"""The tools for a user's own network, on runs of MNIST's IDX files: what is healthy, what is not, and the cure."""

import json
from pathlib import Path

import numpy as np
import pytest

from bnengine.data import load
from tests.cli.conftest import Command
from tests.support import require

TRAIN = ("--hidden", "32,32", "--no-plot", "--quiet", "--out", "r")
STEPS = 125  # of an epoch: 8,000 rows in batches of 64


@pytest.fixture
def mnist() -> str:
    return str(require("mnist"))


def test_a_healthy_run_is_called_healthy_by_every_tool(done: Command, mnist: str) -> None:
    done("train", mnist, *TRAIN, "--epochs", "3", "--watch", "activations")
    for data in ((), ("train",), (mnist,)):
        assert done("doctor", "r", *data, "--json").json["findings"] == []
    found = done("gap", "r", "validation", "--json").json
    assert found["cause"] == "none"
    assert [layer["steps"] for layer in found["layers"]] == [3 * STEPS] * 2
    assert [layer["channels"] for layer in found["layers"]] == [32, 32]
    assert max(layer["running"]["mean"] for layer in found["layers"]) < 0.1
    assert {row["accuracy"] > 0.9 for row in found["scores"]} == {True}
    records = [json.loads(line) for line in Path("r/metrics.jsonl").read_text().splitlines()]
    assert records[0]["activations"]["steps"] == [0, 1, 2, 5, 10, 20, 50, 100]
    for place in ("1", "4"):  # what a BatchNorm gives while gamma is near 1 and beta near 0
        sampled = records[0]["activations"]["layers"][place]
        assert sampled["std"] == pytest.approx([1.0] * 8, abs=0.2)
        assert sampled["mean"] == pytest.approx([0.0] * 8, abs=0.2)
    done("report", "r")
    page = Path("r/report/index.html").read_text()
    assert mnist in page
    assert "Nothing is wrong with the batch normalization" in page
    assert page.count("data:image/png;base64,") >= 2


def test_a_run_too_short_for_its_average_is_named_and_cured(done: Command, bnengine: Command, mnist: str) -> None:
    """0.998^125 = 0.78 of the statistics is still their start."""
    done("train", mnist, *TRAIN, "--epochs", "1", "--bn-decay", "0.998")
    ill = bnengine("doctor", "r", "train", "--json")
    assert ill.code == 3
    assert {(f["id"], f["severity"], f["layer"]) for f in ill.json["findings"]} == {
        ("decay-slow", "error", "1"), ("decay-slow", "error", "4"),
    }  # fmt: skip
    assert {f["numbers"]["left"] for f in ill.json["findings"]} == {0.998**STEPS}
    found = done("gap", "r", "validation", "--json").json
    assert found["cause"] == "not converged"
    assert found["layers"][0]["initial"] == pytest.approx(0.998**STEPS, rel=1e-9)
    cured = done("recalibrate", "r", "train", "--json").json
    assert cured["rows"] == 8000
    assert cured["after"]["validation"]["accuracy"] > cured["before"]["validation"]["accuracy"] + 0.01
    assert done("doctor", cured["written"], "train", "--json").json["findings"] == []


def test_darkened_images_are_a_shift_and_a_claim_runs_on_mnist(done: Command, mnist: str) -> None:
    done("train", mnist, *TRAIN, "--epochs", "1")
    images = load(mnist)
    np.savez("dark.npz", x=np.asarray(images.x)[:1000] // 3, y=np.asarray(images.y)[:1000])
    assert done("gap", "r", "dark.npz", "--json").json["cause"] == "data shift"
    (claim,) = json.loads(done("explain", "shift", "--data", mnist, "--seeds", "2", "--json").out)
    assert claim["verdict"] == "does not hold"
    assert claim["figures"]["clean, training"]["mean"] > 0.9
