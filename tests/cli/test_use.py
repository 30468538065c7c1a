"""`bnengine evaluate`, `predict`, `info` and the group of commands, when all goes well."""

import csv
import os
import pty
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import bnengine as bn
from bnengine.cli.app import COMMANDS
from tests.cli.conftest import SMALL, Command, tensors
from tests.support import ROOT

LONG = ("--hidden", "8", "--epochs", "30", "--batch-size", "16", "--no-plot", "--quiet")


def test_evaluate_gives_the_figures_of_a_classification(done: Command, npz: str, blobs) -> None:
    done("train", npz, *LONG, "--out", "r")
    found = done("evaluate", "r", npz, "--json").json
    x, y = blobs
    guesses = bn.predict(bn.load("r"), x).labels
    assert np.mean(guesses == y) > 0.9
    matrix = [[int(np.sum((y == a) & (guesses == b))) for b in (2, 5, 7)] for a in (2, 5, 7)]
    assert found["confusion_matrix"] == matrix
    assert found["accuracy"] == np.mean(guesses == y)
    assert (found["classes"], found["rows"], found["backend"]) == ([2, 5, 7], 90, "numpy")
    assert found["loss"] > 0
    assert "top_5_accuracy" not in found
    assert [row["label"] for row in found["report"]["classes"]] == ["2", "5", "7"]
    text = done("evaluate", "r", npz).out
    for piece in ("on 90 rows of blobs.npz", "true \\ predicted", "accuracy"):
        assert piece in text


@pytest.mark.parametrize("options", [(), ("--label-smoothing", "0.2")])
def test_evaluate_measures_the_runs_parts_as_training_did(done: Command, npz: str, options: tuple[str, ...]) -> None:
    trained = done("train", npz, *SMALL, *options, "--json", "--out", "r").json
    valid = done("evaluate", "r", "validation", "--json").json
    assert valid["rows"] == 18
    assert valid["loss"] == pytest.approx(trained["valid_loss"], rel=1e-6)
    assert valid["accuracy"] == trained["valid_accuracy"]
    assert done("evaluate", "r", "train", "--json").json["rows"] == 72


def test_evaluate_gives_a_top_5_accuracy_for_more_than_5_classes(done: Command) -> None:
    done("train", "digits", "--hidden", "16", "--epochs", "2", "--no-plot", "--quiet", "--out", "r")
    found = done("evaluate", "r", "digits", "--json").json
    assert found["accuracy"] < found["top_5_accuracy"] <= 1
    assert "top-5 accuracy" in done("evaluate", "r", "validation").out


def test_a_regression_has_the_units_of_the_data(done: Command, prices: str) -> None:
    options = ("--hidden", "none", "--learning-rate", "0.1", "--epochs", "40", "--no-plot", "--quiet")
    done("train", prices, "--target", "price", *options, "--out", "r")
    found = done("evaluate", "r", prices, "--json").json
    data = bn.data.load(prices, target="price")
    errors = bn.predict(bn.load("r"), data.x).values - data.y
    assert found["mean_squared_error"] == pytest.approx(np.mean(errors**2), rel=1e-9)
    assert found["mean_absolute_error"] == pytest.approx(np.mean(np.abs(errors)), rel=1e-9)
    assert found["r2"] == pytest.approx(1 - np.sum(errors**2) / np.sum((data.y - data.y.mean()) ** 2), rel=1e-9)
    assert found["r2"] > 0.99
    assert "of standardized targets" in done("evaluate", "r", prices).out
    done("predict", "r", prices, "-o", "a.csv")
    head, *rows = Path("a.csv").read_text().splitlines()
    assert head == "price"
    done("predict", "r", prices, "-o", "a.npz")
    with np.load("a.npz") as answers:
        assert [float(row) for row in rows] == answers["values"].tolist()


def test_evaluate_takes_a_regression_of_several_targets(done: Command, tmp_path: Path, blobs) -> None:
    targets = blobs[0][:, :2] * [1, 100] + 0.5
    np.savez(tmp_path / "two.npz", x=blobs[0], y=targets)
    done("train", "two.npz", *LONG, "--out", "r")
    errors = bn.predict(bn.load("r"), blobs[0]).values - targets
    assert done("evaluate", "r", "two.npz", "--json").json["mean_squared_error"] == pytest.approx(np.mean(errors**2))
    done("predict", "r", "two.npz", "-o", "a.csv")
    assert Path("a.csv").read_text().startswith("value_0,value_1\n")


def test_a_table_has_colors_on_a_terminal_and_none_in_a_pipe(done: Command, npz: str, tmp_path: Path) -> None:
    done("train", npz, *LONG, "--out", "r")
    assert "\x1b[" not in done("evaluate", "r", npz).out
    code = f"import sys; sys.path.insert(0, {str(ROOT)!r}); from bnengine.cli import main; main()"
    command = [sys.executable, "-c", code, "evaluate", "r", npz]
    master, terminal = pty.openpty()
    environment = {"TERM": "xterm-256color", "PATH": "", "COLUMNS": "100"}
    process = subprocess.Popen(command, cwd=tmp_path, stdout=terminal, stderr=subprocess.PIPE, env=environment)
    with open(master, "rb", buffering=0) as screen:
        shown = b""
        while b"accuracy" not in shown.partition(b"weighted")[2]:
            shown += screen.read(4096)
        with process:
            assert process.wait(60) == 0
    os.close(terminal)
    assert b"\x1b[" in shown


def test_predict_writes_the_users_labels_and_probabilities(done: Command, table: str, blobs) -> None:
    done("train", table, "--target", "species", *LONG, "--out", "r")
    assert done("predict", "r", table, "-o", "a.csv").out == "90 predictions of r/model.safetensors in a.csv\n"
    with open("a.csv", newline="") as file:
        head, *rows = csv.reader(file)
    assert head == ["label", "probability_setosa", "probability_versicolor", "probability_virginica"]
    done("predict", "r", table, "-o", "a.npz", "--quiet")
    with np.load("a.npz") as answers:
        labels, probabilities, classes = answers["labels"], answers["probabilities"], answers["classes"]
    assert [row[0] for row in rows] == labels.tolist()
    assert np.array_equal(np.asarray([row[1:] for row in rows], dtype=float), probabilities)
    assert np.array_equal(classes[np.argmax(probabilities, axis=1)], labels)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, rtol=1e-12)
    expected = bn.predict(bn.load("r"), bn.data.load(table, target="species").x)
    assert np.array_equal(labels, expected.labels)
    assert np.array_equal(probabilities, expected.probabilities)
    # Without targets, with the columns in another order, and as an array.
    lines = ["d,a,c,b", *(f"{d!r},{a!r},{c!r},{b!r}" for a, b, c, d in blobs[0].tolist())]
    Path("bare.csv").write_text("\n".join(lines))
    np.savez("bare.npz", x=blobs[0])
    for data in ("bare.csv", "bare.npz"):
        done("predict", "r", data, "-o", "b.npz", "--force")
        assert Path("b.npz").read_bytes() == Path("a.npz").read_bytes()
    Path("c.csv").write_text("mine")
    done("predict", "r", "validation", "-o", "c.csv", "--force")
    assert len(Path("c.csv").read_text().splitlines()) == 1 + 18


def test_a_folder_of_idx_files_trains_and_evaluates(done: Command, require) -> None:
    mnist = str(require("mnist"))
    done("train", mnist, "--hidden", "16", "--epochs", "1", "--batch-size", "256", "--no-plot", "--out", "r")
    found = done("evaluate", "r", "validation", "--json").json
    assert found["rows"] == 2000
    assert found["accuracy"] > 0.5


def test_info_names_every_backend_with_reason_and_cure(done: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    found = done("info", "--json").json
    reports = {report["name"]: report for report in found["backends"]}
    assert set(reports) == {"numpy", "cupy", "torch", "array_api_strict"}
    assert all(report["usable"] or (report["reason"] and report["cure"]) for report in reports.values())
    assert reports["numpy"]["version"] == np.__version__
    assert found["chosen"]["name"] in reports
    assert found["bnengine"] == bn.__version__
    text = done("info").out
    pieces = [*reports, "chosen: ", "auto: ", f"kernels: {found['kernels']}"]
    pieces += [f"cure: {report['cure']}" for report in reports.values() if not report["usable"]]
    assert [piece for piece in [*pieces, "matplotlib", bn.__version__] if piece not in text] == []
    monkeypatch.setenv("BNENGINE_BACKEND", "abacus")
    assert "chosen: none (environment variable BNENGINE_BACKEND: " in done("info").out


def test_info_of_a_run_shows_layers_and_how_far_it_was_trained(done: Command, npz: str) -> None:
    done("train", npz, *SMALL, "--out", "r")
    text = done("info", "r").out
    for piece in ("3 epochs", "3 classes", "Dense(4, 8) (bias cancelled)", "valid accuracy", "r/config.toml"):
        assert piece in text
    found = done("info", "r", "--json").json
    assert (found["epochs"], found["classes"], found["parameters"]) == (3, [2, 5, 7], 75)


@pytest.mark.parametrize("name", ["-h", *COMMANDS])
def test_every_help_has_an_example_of_its_command(done: Command, name: str) -> None:
    text = done(*(["-h"] if name == "-h" else [name, "--help"])).out
    assert f"\n    bnengine {'train' if name == '-h' else name}" in text


def test_the_version_and_the_module(done: Command, tmp_path: Path) -> None:
    command, environment = [sys.executable, "-m", "bnengine", "--version"], {"PYTHONPATH": str(ROOT)}
    called = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
    assert done("--version").out == called.stdout == f"bnengine {bn.__version__}\n"


def test_labels_that_the_output_cannot_encode_end_no_command(done: Command, tmp_path: Path, blobs) -> None:
    np.savez(tmp_path / "trees.npz", x=blobs[0], y=np.where(blobs[1] == 5, "櫻", "tree"))
    done("train", "trees.npz", *SMALL, "--out", "r")
    assert "櫻" in done("evaluate", "r", "trees.npz").out
    command = [sys.executable, "-m", "bnengine", "evaluate", "r", "trees.npz"]
    environment = {"PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "ascii", "BNENGINE_BACKEND": "numpy"}
    called = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
    assert "accuracy" in called.stdout


def test_closed_outputs_stop_no_training(done: Command, npz: str, tmp_path: Path) -> None:
    done("train", npz, *SMALL, "--out", "whole")
    command = ["sh", "-c", '"$0" -m bnengine train "$@" >&- 2>&-', sys.executable, npz, *SMALL, "--out", "r"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "BNENGINE_BACKEND": "numpy"}
    subprocess.run(command, cwd=tmp_path, env=environment, timeout=60, check=True)
    assert tensors("r") == tensors("whole")


def test_importing_the_package_imports_no_command(tmp_path: Path) -> None:
    code = "import sys, bnengine.cli; assert not {'click', 'rich', 'bnengine.cli.app'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env={"PYTHONPATH": str(ROOT)}, check=True)
