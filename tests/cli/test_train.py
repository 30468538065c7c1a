"""`bnengine train` when all goes well: the run's folder, its bits, what the options do."""

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
from bnengine.cli.settings import Settings, table
from bnengine.optim.optimizers import OPTIMIZERS
from tests.cli.conftest import SMALL, Command, metrics, tensors
from tests.support import ROOT

NEEDED = [
    "backend",
    "epochs",
    "steps",
    "train_loss",
    "valid_loss",
    "valid_accuracy",
    "best_valid_accuracy",
    "seconds",
    "samples_per_second",
    "parameters",
    "cancelled_biases",
    "skipped_steps",
    "out",
]


def test_a_run_leaves_a_folder_with_config_metrics_model_and_curves(done: Command, npz: str, require) -> None:
    require("matplotlib")
    result = done("train", npz, *SMALL[:-1])
    run = Path("runs/blobs-1")
    assert {p.name for p in run.iterdir()} == {"config.toml", "metrics.jsonl", "model.safetensors", "curves.png"}
    assert (run / "curves.png").read_bytes().startswith(b"\x89PNG")
    assert [r["epoch"] for r in metrics(run)] == [0, 1, 2]
    network = "4-8-3, batch norm, relu"
    for told in (
        "auto: NumPy, since",
        "72 samples of 4 features to train, 18 to validate",
        network,
        "8 biases left out",
    ):
        assert told in result.out
    assert "epoch 3/3" in result.err


def test_the_next_run_takes_the_next_free_number(done: Command, npz: str) -> None:
    for _ in range(2):
        done("train", npz, *SMALL)
    assert sorted(p.name for p in Path("runs").iterdir()) == ["blobs-1", "blobs-2"]
    assert tensors(Path("runs/blobs-1")) == tensors(Path("runs/blobs-2"))


def test_json_is_one_object_on_standard_output_and_all_else_on_standard_error(done: Command, npz: str) -> None:
    result = done("train", npz, *SMALL, "--json", "--out", "r")
    found = result.json
    assert set(NEEDED) <= set(found)
    assert found["out"] == "r"
    assert found["backend"] == "numpy"
    assert (found["epochs"], found["steps"], found["skipped_steps"]) == (3, 15, 0)
    assert found["parameters"] == 4 * 8 + 2 * 8 + 8 * 3 + 3
    assert found["cancelled_biases"] == 8
    last = metrics(Path("r"))[-1]
    assert found["valid_accuracy"] == last["valid_accuracy"]
    assert found["best_valid_accuracy"] == max(r["valid_accuracy"] for r in metrics(Path("r")))
    assert found["seconds"] > 0
    assert found["samples_per_second"] > 0
    assert "network   4-8-3" in result.err
    assert "epoch 3/3" in result.err


def test_quiet_prints_nothing_but_the_json_that_was_asked_for(done: Command, npz: str) -> None:
    assert done("train", npz, *SMALL, "--quiet")[1:] == ("", "")
    result = done("train", npz, *SMALL, "--quiet", "--json")
    assert result.err == ""
    assert result.json["epochs"] == 3


def test_config_toml_is_complete_and_trains_the_same_bits_again(done: Command, npz: str) -> None:
    options = ("--norm", "normalize-only", "--dropout", "0.1", "--optimizer", "rmsprop", "--momentum", "0.5")
    done("train", npz, *SMALL, *options, "--schedule", "cosine", "--warm-up", "3", "--threads", "1", "--out", "first")
    config = tomllib.loads(Path("first/config.toml").read_text())
    made_by = config.pop("made_by")
    assert made_by["bnengine"] == bn.__version__
    assert {key for section in config.values() for key in section} == set(table())
    assert config["data"]["path"] == str(Path.cwd() / npz)
    assert config["run"]["backend"] == "numpy"
    assert config["training"]["loss"] == "softmax_cross_entropy"
    done("train", "--config", "first/config.toml", "--out", "second", "--no-plot")
    assert tensors(Path("first")) == tensors(Path("second"))
    assert metrics(Path("first")) == metrics(Path("second"))
    assert tomllib.loads(Path("second/config.toml").read_text()) == {**config, "made_by": made_by}


def test_an_option_counts_more_than_the_config(done: Command, npz: str) -> None:
    done("train", npz, *SMALL, "--out", "first")
    done("train", "--config", "first/config.toml", "--seed", "1", "--epochs", "2", "--out", "second", "--no-plot")
    config = tomllib.loads(Path("second/config.toml").read_text())
    assert (config["run"]["seed"], config["training"]["epochs"], config["training"]["batch_size"]) == (1, 2, 16)
    assert len(metrics(Path("second"))) == 2


def test_a_config_may_hold_a_few_settings_only(done: Command, npz: str) -> None:
    Path("small.toml").write_text(f'[data]\npath = "{npz}"\n[network]\nhidden = []\n[training]\nepochs = 1\n')
    found = done("train", "--config", "small.toml", "--json", "--no-plot").json
    assert found["parameters"] == 4 * 3 + 3
    assert found["cancelled_biases"] == 0
    assert found["epochs"] == 1


OPTIONS = [
    "--norm none",
    "--norm normalize-only",
    "--bn-decay exact",
    "--bn-decay 0.5",
    "--activation gelu",
    "--activation tanh",
    "--dropout 0.3",
    *(f"--optimizer {name}" for name in OPTIMIZERS if name != Settings().optimizer),
    "--optimizer sgd --momentum 0.9",
    "--weight-decay 0.1",
    "--learning-rate 0.02",
    "--schedule constant",
    "--schedule cosine",
    "--schedule step --drop-every 1 --drop-factor 0.5",
    "--schedule plateau --drop-every 1",
    "--warm-up 4",
    "--clip-norm 0.1",
    "--accumulate 2",
    "--label-smoothing 0.1",
    "--batch-size 8",
    "--average 0.9",
    "--validation 0.4",
    "--scaling none",
    "--seed 3",
    "--dtype float64",
    "--precision float16",
    "--hidden 8,8",
    "--hidden none",
]


def test_every_option_that_should_make_a_difference_makes_its_own(done: Command, npz: str) -> None:
    done("train", npz, *SMALL, "--out", "plain")
    results = {tensors(Path("plain")): "plain"}
    for number, options in enumerate(OPTIONS):
        done("train", npz, *SMALL, *options.split(), "--quiet", "--out", f"r{number}")
        found = tensors(Path(f"r{number}"))
        assert found not in results, f"{options} gives the same as {results[found]}"
        results[found] = options


@pytest.mark.parametrize("precision", ["float16", "bfloat16"])
def test_a_run_in_16_bits_is_repeated_from_its_settings_and_tells_its_precision(
    done: Command, npz: str, require, precision: str
) -> None:
    if precision == "bfloat16":
        require("ml_dtypes")
    whole = done("train", npz, *SMALL, "--precision", precision, "--out", "whole")
    assert f"parameters in float32, precision {precision};" in whole.out
    assert f'precision = "{precision}"' in Path("whole/config.toml").read_text()
    again = done("train", "--config", "whole/config.toml", "--no-plot", "--json", "--out", "again").json
    assert tensors(Path("again")) == tensors(Path("whole"))
    told = done("info", "whole").out
    assert f"3 epochs in precision {precision}, scaling" in told
    assert done("info", "whole", "--json").json["precision"] == precision
    found = done("evaluate", "whole", "validation", "--json").json
    assert found["loss"] == pytest.approx(again["valid_loss"], rel=0.02)  # in full precision


def test_checkpoints_within_an_epoch_change_no_bit(done: Command, npz: str) -> None:
    done("train", npz, *SMALL, "--out", "plain")
    done("train", npz, *SMALL, "--checkpoint-every", "2", "--out", "often")
    assert tensors(Path("plain")) == tensors(Path("often"))


def test_watching_activations_changes_no_bit_and_is_written_down(done: Command, npz: str) -> None:
    done("train", npz, *SMALL, "--out", "plain")
    done("train", npz, *SMALL, "--watch", "activations", "--out", "watched")
    plain, watched = (bn.load(folder).state_dict() for folder in ("plain", "watched"))
    assert all(plain[name].tobytes() == watched[name].tobytes() for name in plain)
    first, *_, last = metrics(Path("watched"))
    assert first.pop("activations")["steps"] == [0, 1, 2]
    assert first == metrics(Path("plain"))[0]
    assert list(last["activations"]["layers"]) == ["0", "1", "2", "3"]


@pytest.mark.parametrize("backend", ["array_api_strict", "torch"])
def test_other_array_libraries_train_too(done: Command, npz: str, require, backend: str) -> None:
    require(backend)
    found = done("train", npz, *SMALL, "--backend", backend, "--json", "--dtype", "float64", "--out", "other").json
    assert found["backend"] == backend
    assert done("train", npz, *SMALL, "--dtype", "float64", "--json").json["valid_loss"] == pytest.approx(
        found["valid_loss"], rel=1e-9
    )


def test_the_environment_names_a_backend_and_the_option_counts_more(
    done: Command, npz: str, require, monkeypatch: pytest.MonkeyPatch
) -> None:
    require("array_api_strict")
    monkeypatch.setenv("BNENGINE_BACKEND", "array_api_strict")
    assert done("train", npz, *SMALL, "--json").json["backend"] == "array_api_strict"
    assert done("train", npz, *SMALL, "--json", "--backend", "numpy").json["backend"] == "numpy"


def test_targets_with_fractions_are_a_regression_and_accuracy_is_null(done: Command, prices: str) -> None:
    options = ("--hidden", "none", "--learning-rate", "0.1", "--epochs", "60", "--no-plot", "--json", "--out", "r")
    found = done("train", prices, "--target", "price", *options).json
    assert found["valid_accuracy"] is None
    assert found["best_valid_accuracy"] is None
    assert found["valid_loss"] < 1e-3
    assert tomllib.loads(Path("r/config.toml").read_text())["training"]["loss"] == "mean_squared_error"


def test_whole_numbers_are_classes_unless_the_loss_says_otherwise(done: Command, npz: str) -> None:
    assert "3 classes" in done("train", npz, *SMALL).out
    assert "regression;" in done("train", npz, *SMALL, "--loss", "mean_squared_error").out


def test_two_classes_train_by_binary_cross_entropy_with_one_output(done: Command, tmp_path: Path, blobs) -> None:
    x, y = blobs
    np.savez(tmp_path / "two.npz", x=x, y=np.where(y == 5, "yes", "no"))
    result = done("train", "two.npz", *SMALL, "--epochs", "30", "--loss", "binary_cross_entropy", "--out", "r")
    assert "4-8-1" in result.out
    assert done("evaluate", "r", "two.npz", "--json").json["accuracy"] > 0.9


def test_a_test_part_of_the_data_is_what_validates(done: Command, tmp_path: Path, blobs) -> None:
    x, y = blobs
    np.savez(tmp_path / "parts.npz", x_train=x[:60], y_train=y[:60], x_test=x[60:], y_test=y[60:])
    assert (
        "60 samples of 4 features to train, 30 to validate, as the files have it"
        in done("train", "parts.npz", *SMALL).out
    )


def test_without_validation_its_figures_are_null(done: Command, npz: str) -> None:
    result = done("train", npz, *SMALL, "--validation", "0", "--json", "--out", "r")
    assert (result.json["valid_loss"], result.json["valid_accuracy"]) == (None, None)
    assert "bnengine evaluate r train" in result.err


def test_early_stopping_ends_the_run_and_tells_the_figures_of_the_weights_it_keeps(done: Command, npz: str) -> None:
    options = ("--schedule", "constant", "--learning-rate", "0.5", "--epochs", "50", "--early-stopping", "2")
    result = done("train", npz, "--hidden", "8", *options, "--no-plot", "--json", "--out", "r")
    records = metrics(Path("r"))
    assert len(records) < 50
    assert result.json["valid_loss"] == min(r["valid_loss"] for r in records)
    assert "stopped: valid_loss has not improved for 2 epochs" in result.err
    assert "whose weights are kept" in result.err
    evaluated = done("evaluate", "r", "validation", "--json").json
    assert evaluated["loss"] == pytest.approx(result.json["valid_loss"], rel=1e-6)


def test_a_missing_matplotlib_is_told_with_its_cure_and_the_run_goes_on(
    done: Command, npz: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("matplotlib.figure", "matplotlib.backends.backend_agg"):
        monkeypatch.setitem(sys.modules, name, None)
    result = done("train", npz, *SMALL[:-1], "--out", "r")
    assert "no curves.png was drawn" in result.err
    assert "pip install 'bnengine[plot]'" in result.err
    assert not Path("r/curves.png").exists()
    assert Path("r/model.safetensors").exists()


def test_steps_that_were_not_finite_are_told_and_stand_in_the_metrics_as_null(done: Command, npz: str) -> None:
    options = ("--hidden", "8", "--batch-size", "64", "--epochs", "3", "--learning-rate", "1e30", "--no-plot")
    result = done("train", npz, *options, "--json", "--out", "r")
    assert result.json["skipped_steps"] == 5
    assert result.json["train_loss"] is None
    assert "skipped" in result.err
    assert json.loads(Path("r/metrics.jsonl").read_text().splitlines()[-1])["train_loss"] is None
    assert done("train", "--resume", "r", "--json", "--no-plot").json["skipped_steps"] == 5


def test_the_python_interface_loads_what_the_command_line_trained(done: Command, npz: str, blobs) -> None:
    done("train", npz, *SMALL, "--epochs", "20", "--out", "r")
    x, y = blobs
    assert (bn.predict(bn.load("r"), x).labels == y).mean() > 0.9


def test_the_defaults_shown_in_the_help_are_those_of_the_settings(done: Command) -> None:
    text = " ".join(done("train", "--help").out.split())
    for name, one in table().items():
        if name != "path":
            assert "--" + name.replace("_", "-") in text
            assert f"[{one.metadata['shown']}]" in text or not one.metadata["shown"]
    assert Settings().batch_size == 64


def test_the_defaults_learn_the_digits() -> None:
    # In processes of their own with one BLAS thread each: several take turns on matrices as small as these.
    command = [sys.executable, "-m", "bnengine", "train", "digits", "--json", "--quiet", "--no-plot", "--seed"]
    accuracies = []
    with TemporaryDirectory() as folder:
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "OPENBLAS_NUM_THREADS": "1", "BNENGINE_BACKEND": "numpy"}
        for seed in range(5):
            done = subprocess.run(
                [*command, str(seed)], cwd=folder, env=environment, capture_output=True, text=True, check=True
            )
            accuracies.append(json.loads(done.stdout)["valid_accuracy"])
    assert accuracies[0] >= 0.975
    assert np.mean(accuracies) >= 0.980
