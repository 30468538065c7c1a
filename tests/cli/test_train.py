"""`bnengine train` when all goes well: the run's folder, its bits, the effect of the options."""

import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest

import bnengine as bn
from bnengine.cli.settings import Settings, flag, table
from bnengine.optim.optimizers import OPTIMIZERS
from tests.cli.conftest import SMALL, Command, metrics, tensors
from tests.support import ROOT


def test_a_run_has_config_metrics_model_and_curves(done: Command, npz: str, require) -> None:
    require("matplotlib")
    result = done("train", npz, *SMALL[:-1])
    run = Path("runs/blobs-1")
    assert {p.name for p in run.iterdir()} == {"config.toml", "metrics.jsonl", "model.safetensors", "curves.png"}
    assert (run / "curves.png").read_bytes().startswith(b"\x89PNG")
    for line in ("auto: NumPy, since", "72 samples of 4 features to train, 18 to validate", "8 biases left out"):
        assert line in result.out
    assert "4-8-3, batch norm, relu" in result.out
    assert "epoch 3/3" in result.err
    records = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [(r["epoch"], r["steps"]) for r in records] == [(0, 5), (1, 10), (2, 15)]
    needed = {"learning_rate", "train_loss", "train_accuracy", "valid_loss", "valid_accuracy"}
    assert all(needed | {"seconds", "samples_per_second"} <= set(record) for record in records)
    done("train", npz, *SMALL)
    assert tensors("runs/blobs-2") == tensors(run)


def test_json_is_one_object_on_standard_output(done: Command, npz: str) -> None:
    result = done("train", npz, *SMALL, "--json", "--out", "r")
    last = metrics("r")[-1]
    expected = {
        "backend": "numpy", "epochs": 3, "steps": 15, "parameters": 4 * 8 + 2 * 8 + 8 * 3 + 3, "cancelled_biases": 8,
        "skipped_steps": 0, "out": "r", "best_valid_accuracy": max(r["valid_accuracy"] for r in metrics("r")),
        **{name: last[name] for name in ("train_loss", "train_accuracy", "valid_loss", "valid_accuracy")},
    }  # fmt: skip
    found = result.json
    assert found.pop("seconds") > 0
    assert found.pop("samples_per_second") > 0
    assert found == expected
    assert "network   4-8-3" in result.err
    assert "epoch 3/3" in result.err


def test_quiet_prints_nothing_but_the_json(done: Command, npz: str) -> None:
    assert done("train", npz, *SMALL, "--quiet")[1:] == ("", "")
    result = done("train", npz, *SMALL, "--quiet", "--json")
    assert result.err == ""
    assert result.json["epochs"] == 3


def test_config_toml_is_complete_and_trains_the_same_bits_again(done: Command, npz: str) -> None:
    options = "--norm normalize-only --dropout 0.1 --optimizer rmsprop --momentum 0.5 --schedule cosine --warm-up 3"
    done("train", npz, *SMALL, *options.split(), "--threads", "1", "--out", "first")
    config = tomllib.loads(Path("first/config.toml").read_text())
    made_by = config.pop("made_by")
    assert made_by["bnengine"] == bn.__version__
    assert {key for section in config.values() for key in section} == set(table())
    assert config["data"]["path"] == str(Path.cwd() / npz)
    assert (config["run"]["backend"], config["training"]["loss"]) == ("numpy", "softmax_cross_entropy")
    done("train", "--config", "first/config.toml", "--out", "second", "--no-plot")
    assert tensors("first") == tensors("second")
    assert metrics("first") == metrics("second")
    assert tomllib.loads(Path("second/config.toml").read_text()) == {**config, "made_by": made_by}
    done("train", "--config", "first/config.toml", "--seed", "1", "--epochs", "2", "--out", "third", "--no-plot")
    other = tomllib.loads(Path("third/config.toml").read_text())
    assert (other["run"]["seed"], other["training"]["epochs"], other["training"]["batch_size"]) == (1, 2, 16)
    assert len(metrics("third")) == 2


def test_a_config_may_have_only_some_settings(done: Command, npz: str) -> None:
    Path("small.toml").write_text(f'[data]\npath = "{npz}"\n[network]\nhidden = []\n[training]\nepochs = 1\n')
    found = done("train", "--config", "small.toml", "--json", "--no-plot").json
    assert (found["parameters"], found["cancelled_biases"], found["epochs"]) == (4 * 3 + 3, 0, 1)


OPTIONS = [
    "--norm none", "--norm normalize-only", "--bn-decay exact", "--bn-decay 0.5", "--activation gelu",
    "--activation tanh", "--dropout 0.3", "--optimizer sgd --momentum 0.9", "--weight-decay 0.1",
    *(f"--optimizer {name}" for name in OPTIMIZERS if name != Settings().optimizer), "--learning-rate 0.02",
    "--schedule constant", "--schedule cosine", "--schedule step --drop-every 1 --drop-factor 0.5",
    "--schedule plateau --drop-every 1", "--warm-up 4", "--clip-norm 0.1", "--accumulate 2", "--label-smoothing 0.1",
    "--class-weights balanced",
    "--batch-size 8", "--average 0.9", "--validation 0.4", "--scaling none", "--seed 3", "--dtype float64",
    "--precision float16", "--hidden 8,8", "--hidden none",
]  # fmt: skip


def test_every_option_that_should_make_a_difference_makes_one(done: Command, npz: str) -> None:
    done("train", npz, *SMALL, "--out", "plain")
    results = {tensors("plain"): "plain"}
    for number, options in enumerate(OPTIONS):
        done("train", npz, *SMALL, *options.split(), "--quiet", "--out", f"r{number}")
        found = tensors(f"r{number}")
        assert found not in results, f"{options} gives the same as {results[found]}"
        results[found] = options


@pytest.mark.parametrize("precision", ["float16", "bfloat16"])
def test_a_run_in_16_bits_repeats_from_its_settings(done: Command, npz: str, require, precision: str) -> None:
    if precision == "bfloat16":
        require("ml_dtypes")
    whole = done("train", npz, *SMALL, "--precision", precision, "--out", "whole")
    assert f"parameters in float32, precision {precision};" in whole.out
    assert f'precision = "{precision}"' in Path("whole/config.toml").read_text()
    again = done("train", "--config", "whole/config.toml", "--no-plot", "--json", "--out", "again").json
    assert tensors("again") == tensors("whole")
    assert f"3 epochs in precision {precision}, scaling" in done("info", "whole").out
    assert done("info", "whole", "--json").json["precision"] == precision
    found = done("evaluate", "whole", "validation", "--json").json
    assert found["loss"] == pytest.approx(again["valid_loss"], rel=0.02)  # in full precision


def test_recorded_activations_change_no_bit(done: Command, npz: str) -> None:
    done("train", npz, *SMALL, "--out", "plain")
    done("train", npz, *SMALL, "--watch", "activations", "--out", "recorded")
    plain, recorded = (bn.load(folder).state_dict() for folder in ("plain", "recorded"))
    assert all(plain[name].tobytes() == recorded[name].tobytes() for name in plain)
    first, *_, last = metrics("recorded")
    assert first.pop("activations")["steps"] == [0, 1, 2]
    assert first == metrics("plain")[0]
    assert list(last["activations"]["layers"]) == ["0", "1", "2", "3"]


@pytest.mark.parametrize("backend", ["array_api_strict", "torch"])
def test_other_array_libraries_train_too(
    done: Command, npz: str, require, monkeypatch: pytest.MonkeyPatch, backend: str
) -> None:
    require(backend)
    monkeypatch.setenv("BNENGINE_BACKEND", backend)
    found = done("train", npz, *SMALL, "--json", "--dtype", "float64").json
    assert found["backend"] == backend
    here = done("train", npz, *SMALL, "--dtype", "float64", "--json", "--backend", "numpy").json
    assert here["backend"] == "numpy"
    assert here["valid_loss"] == pytest.approx(found["valid_loss"], rel=1e-9)


def test_targets_with_fractions_are_a_regression(done: Command, prices: str) -> None:
    options = ("--hidden", "none", "--learning-rate", "0.1", "--epochs", "60", "--no-plot", "--json", "--out", "r")
    found = done("train", prices, "--target", "price", *options).json
    assert (found["valid_accuracy"], found["best_valid_accuracy"]) == (None, None)
    assert found["valid_loss"] < 1e-3
    assert tomllib.loads(Path("r/config.toml").read_text())["training"]["loss"] == "mean_squared_error"


def test_data_decide_the_task_and_the_parts(done: Command, npz: str, tmp_path: Path, blobs) -> None:
    x, y = blobs
    assert "3 classes" in done("train", npz, *SMALL).out
    assert "regression;" in done("train", npz, *SMALL, "--loss", "mean_squared_error").out
    np.savez(tmp_path / "two.npz", x=x, y=np.where(y == 5, "yes", "no"))
    result = done("train", "two.npz", *SMALL, "--epochs", "30", "--loss", "binary_cross_entropy", "--out", "r")
    assert "4-8-1" in result.out
    assert done("evaluate", "r", "two.npz", "--json").json["accuracy"] > 0.9
    np.savez(tmp_path / "parts.npz", x_train=x[:60], y_train=y[:60], x_test=x[60:], y_test=y[60:])
    out = done("train", "parts.npz", *SMALL).out
    assert "60 samples of 4 features to train, 30 to validate, as the files have it" in out
    result = done("train", npz, *SMALL, "--validation", "0", "--json", "--out", "all")
    assert (result.json["valid_loss"], result.json["valid_accuracy"]) == (None, None)
    assert "bnengine evaluate all train" in result.err


def test_early_stopping_reports_the_weights_it_keeps(done: Command, npz: str) -> None:
    options = ("--schedule", "constant", "--learning-rate", "0.5", "--epochs", "50", "--early-stopping", "2")
    result = done("train", npz, "--hidden", "8", *options, "--no-plot", "--json", "--out", "r")
    records = metrics("r")
    assert len(records) < 50
    assert result.json["valid_loss"] == min(r["valid_loss"] for r in records)
    assert "stopped: valid_loss has not improved for 2 epochs" in result.err
    assert "whose weights are kept" in result.err
    evaluated = done("evaluate", "r", "validation", "--json").json
    assert evaluated["loss"] == pytest.approx(result.json["valid_loss"], rel=1e-6)


def test_without_matplotlib_the_run_continues_with_a_warning(
    done: Command, npz: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("matplotlib.figure", "matplotlib.backends.backend_agg"):
        monkeypatch.setitem(sys.modules, name, None)
    result = done("train", npz, *SMALL[:-1], "--out", "r")
    assert "could not draw curves.png" in result.err
    assert "pip install 'bnengine[plot]'" in result.err
    assert {path.name for path in Path("r").iterdir()} == {"config.toml", "metrics.jsonl", "model.safetensors"}


def test_skipped_steps_are_reported_and_their_losses_are_null(done: Command, npz: str) -> None:
    options = ("--hidden", "8", "--batch-size", "64", "--epochs", "3", "--learning-rate", "1e30", "--no-plot")
    result = done("train", npz, *options, "--json", "--out", "r")
    assert (result.json["skipped_steps"], result.json["train_loss"]) == (5, None)
    assert "skipped" in result.err
    assert json.loads(Path("r/metrics.jsonl").read_text().splitlines()[-1])["train_loss"] is None
    assert done("train", "--resume", "r", "--json", "--no-plot").json["skipped_steps"] == 5


def test_the_help_shows_every_setting_with_its_default(done: Command) -> None:
    text = " ".join(done("train", "--help").out.split())
    for name, row in table().items():
        if name != "path":
            assert flag(name) in text
            assert f"[{row.metadata['shown']}]" in text or not row.metadata["shown"]


def test_the_defaults_learn_the_digits() -> None:
    # In a process with one BLAS thread: several threads take turns on matrices as small as these.
    train = "train digits --json --quiet --no-plot --seed"
    code = f"""
import contextlib
from bnengine.cli import main
for seed in "01234":
    with contextlib.suppress(SystemExit):
        main([*"{train}".split(), seed])
"""
    with TemporaryDirectory() as folder:
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "OPENBLAS_NUM_THREADS": "1", "BNENGINE_BACKEND": "numpy"}
        options = {"cwd": folder, "env": environment, "capture_output": True, "text": True, "check": True}
        done = subprocess.run([sys.executable, "-c", code], **options)  # type: ignore[call-overload]
    accuracies = [json.loads(line)["valid_accuracy"] for line in done.stdout.splitlines()]
    assert len(accuracies) == 5
    assert accuracies[0] >= 0.975
    assert np.mean(accuracies) >= 0.980
