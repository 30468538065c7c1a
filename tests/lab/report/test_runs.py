"""The report of a run: what is found in it, and what its page says when the run's data are gone."""

import json
from pathlib import Path

import numpy as np
import pytest

import bnengine as bn
from bnengine.lab.report.distributions import collected
from bnengine.lab.report.runs import batch_norms
from bnengine.layers import BatchNorm
from tests.cli.conftest import SMALL, Command
from tests.lab.report.browser import check

pytest.importorskip("matplotlib")
PAGE = Path("r/report/index.html")


def page() -> str:
    return PAGE.read_text(encoding="utf-8")


def test_a_healthy_run_is_called_healthy(done: Command) -> None:
    done("train", "digits", "--hidden", "32", "--epochs", "8", "--no-plot", "--quiet", "--out", "r")
    done("report", "r")
    assert "no gap" in page()
    assert "Nothing is wrong with the batch normalization" in page()


def test_the_findings_of_the_doctor_and_the_gap_are_told_as_these_commands_do(done: Command, bnengine: Command) -> None:
    slow = ("--hidden", "32", "--epochs", "2", "--bn-decay", "0.999", "--scaling", "none", "--no-plot", "--quiet")
    done("train", "digits", *slow, "--out", "r")
    done("report", "r")
    gap = done("gap", "r", "validation", "--json").json
    assert gap["cause"] != "none"
    assert f">{gap['cause']}</span>" in page()
    for one in gap["scores"]:
        assert f"{one['loss']:.4g}" in page()
    findings = json.loads(bnengine("doctor", "r", "train", "--json").out)["findings"]
    assert findings
    for finding in findings:
        assert finding["id"] in page()


def test_a_run_whose_data_are_gone_says_so(done: Command, npz: str) -> None:
    done("train", npz, *SMALL, "--out", "r")
    Path(npz).unlink()
    done("report", "r")
    assert "The run&#39;s data were not used" in page()
    assert npz in page()
    done("report", "r", "--no-data")
    assert "were not used (--no-data)" in page()


def test_a_run_without_batch_norm_has_a_page_too(done: Command, npz: str) -> None:
    done("train", npz, *SMALL, "--norm", "none", "--out", "r")
    done("report", "r")
    assert "The network has no BatchNorm." in page()


def test_a_run_that_has_trained_no_epoch_has_nothing_to_draw(done: Command, npz: str) -> None:
    done("train", npz, *SMALL, "--out", "r")
    Path("r/metrics.jsonl").write_text("")
    done("report", "r")
    assert "there is nothing to draw" in page()
    assert "data:image/png" not in page()


def test_the_page_of_a_run_has_nothing_wrong_in_a_browser(done: Command, tmp_path: Path, blobs) -> None:
    name = "<b>" + "long" * 30 + "&.npz"
    np.savez(tmp_path / name, x=blobs[0], y=blobs[1])
    done("train", name, *SMALL, "--out", "r")
    done("report", "r")
    check(PAGE.absolute(), tmp_path, pictures=1)


def test_channels_near_eps_are_counted() -> None:
    network = bn.Sequential(bn.Dense(3, 4), BatchNorm(4, eps=1e-3, gamma=False), bn.Dense(4, 2))
    state = network.state_dict()
    state["1.running_var"] = np.asarray([1.0, 9e-3, 1.1e-2, 0.0])
    state["1.running_count"] = np.full_like(state["1.running_count"], 7)
    network.load_state_dict(state)
    (layer,) = batch_norms(network)
    assert (layer.name, layer.eps, layer.seen, layer.near_eps) == ("1", 1e-3, 7, 2)
    assert layer.gamma.tolist() == [1, 1, 1, 1]
    assert layer.beta.tolist() == [0, 0, 0, 0]


def test_a_watched_run_shows_what_its_layers_gave_over_time(done: Command) -> None:
    options = ("--hidden", "32", "--epochs", "4", "--no-plot", "--quiet", "--watch", "activations")
    done("train", "digits", *options, "--out", "r")
    done("report", "r")
    lines = [json.loads(line) for line in Path("r/metrics.jsonl").read_text().splitlines()]
    steps, layers = collected(lines)
    assert steps == [0, 1, 2, 5, 10, 20, 50]
    assert list(layers) == ["0", "1", "2", "3"]
    first = next(line["activations"] for line in lines if "activations" in line)
    assert f"{first['layers']['1']['std'][0]:.3g} to {layers['1']['std'][-1]:.3g}" in page()
    assert "Activations over time" in page()
    assert page().count("<img") == 2  # the curves, and this


def test_a_run_that_was_not_watched_has_no_such_section(done: Command, npz: str) -> None:
    done("train", npz, *SMALL, "--out", "r")
    done("report", "r")
    assert "over time" not in page()


def test_layers_are_in_the_order_of_the_network_and_samples_in_that_of_the_steps():
    def record(steps, value):
        return {"activations": {"steps": steps, "layers": {"10": {"std": [value]}, "2": {"std": [value]}}}}

    steps, layers = collected([record([0], 1.0), {}, record([5], None)])
    assert steps == [0, 5]
    assert list(layers) == ["2", "10"]
    assert layers["10"]["std"][0] == 1.0
    assert np.isnan(layers["10"]["std"][1])
