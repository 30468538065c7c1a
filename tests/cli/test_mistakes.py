"""Slips of a user: one line with the cure, exit code 2, no file changed."""

import multiprocessing
from pathlib import Path

import numpy as np
import pytest

import bnengine as bn
from bnengine import fused
from bnengine.cli import main, train
from bnengine.storage.runs import RunFolder
from tests.cli.conftest import SMALL, Command, contents, points, write_data


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Data of all kinds; the runs r, `plain` (no batch norm), and `begun` (no checkpoint); the folder `full`."""
    folder = tmp_path_factory.mktemp("work")
    write_data(folder)
    x, y = points()
    np.savez(folder / "narrow.npz", x=x[:, :3], y=y)
    np.savez(folder / "strange.npz", x=x, y=np.where(y == 5, 4, y))
    np.savez(folder / "bare.npz", x=x)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.delenv("BNENGINE_BACKEND", raising=False)
        bn.save("bare.safetensors", bn.Sequential(bn.Dense(4, 3)))
        for arguments in (("--out", "r"), ("--norm", "none", "--validation", "0", "--out", "plain")):
            with pytest.raises(SystemExit):
                main(["train", "blobs.npz", *SMALL, "--epochs", "1", "--quiet", *arguments])
        bn.save("untrained.safetensors", bn.load("r"))
        for name, file in (("begun", "config.toml"), ("full", "notes.txt"), ("alone", "config.toml")):
            Path(name).mkdir()
            Path(name, file).write_text("")
        bn.save("alone", bn.load("r"))
        Path("far.safetensors").write_bytes(Path("r/model.safetensors").read_bytes())
    return folder


MISTAKES = [
    ("inform", "bnengine: No such command 'inform'. Did you mean 'info'? Run bnengine --help"),
    ("banana", "bnengine: No such command 'banana'. Run bnengine --help"),
    ("--hlep", "bnengine: No such option", "--help"),
    ("train", "train: DATA is missing. Try bnengine train digits"),
    ("train nowhere.csv --target a", "nowhere.csv"),
    ("train flowers.csv", "flowers.csv", "--target COLUMN", "'a', 'b', 'species'"),
    ("train flowers.csv --target sort", "'sort'", "'a', 'b', 'species'"),
    ("train blobs.npz --target a", "'a'"),
    ("train blobs.npz --epochs 0", "train: Invalid value for '--epochs': 0 is not in the range x>=1.", "train --help"),
    ("train blobs.npz --epochs few", "'few' is not a valid integer"),
    ("train blobs.npz --epochs 1.5", "'1.5' is not a valid integer"),
    ("train blobs.npz --seed -1", "-1 is not in the range x>=0"),
    (f"train blobs.npz --seed {2**63}", f"train: --seed must be an integer from 0 to {2**63 - 1}, got {2**63}."),
    ("train blobs.npz --threads 257", "257 is not in the range 1<=x<=256"),
    ("train blobs.npz --threads two", "'two' is not a valid integer"),
    ("train blobs.npz --hidden 8,x", "'8,x' is not a list of widths such as 100,100, or none"),
    ("train blobs.npz --hidden 8,0", "train: --hidden must be an integer of at least 1, got 0."),
    ("train blobs.npz --norm layer", "'layer' is not one of 'batch', 'normalize-only', 'none'"),
    *((f"train blobs.npz --{name} nonesuch", "'nonesuch' is not one of") for name in (
        "activation", "optimizer", "loss", "schedule", "scaling", "dtype", "precision", "kernels", "graph", "watch",
    )),
    ("train blobs.npz --precision tf32 --backend numpy", "train: --precision 'tf32'", "--backend 'cupy'"),
    ("train blobs.npz --precision float16 --dtype float64", "--precision 'float16'", "--dtype 'float32'"),
    ("train blobs.npz --graph yes --backend numpy", "train: --graph yes: the backend numpy has no graphs."),
    ("train blobs.npz --dropout 1", "1.0 is not in the range 0<=x<1."),
    ("train blobs.npz --learning-rate 0", "0.0 is not in the range x>0"),
    ("train blobs.npz --learning-rate nan", "train: --learning-rate must be a finite number above 0, got nan."),
    ("train blobs.npz --clip-norm inf", "train: --clip-norm must be a finite number of at least 0, got inf."),
    ("train blobs.npz --bn-decay all", "'all' is not a number, nor the word exact"),
    ("train blobs.npz --bn-decay 1", "--bn-decay must be a finite number of at least 0 and below 1, got 1.0. Or take"),
    ("train blobs.npz --backend tpu", "train: --backend", "'tpu'"),
    ("train blobs.npz --momentum 0.9", "--momentum 0.9 is an option of --optimizer sgd or rmsprop, not of adam."),
    ("train blobs.npz --loss binary_cross_entropy", "the data must have 2 classes, got 3. Take softmax_cross_entropy."),
    ("train prices.csv --target price --label-smoothing 0.1", "--label-smoothing 0.1 is an option of --loss softmax"),
    ("train prices.csv --target price --class-weights balanced", "--class-weights balanced is an option of --loss"),
    ("train flowers.csv --target species --class-weights even", "must be none, balanced or LABEL=WEIGHT", "got 'even'"),
    ("train flowers.csv --target species --class-weights lily=2", "the keys of class_weights must be the classes"),
    ("train flowers.csv --target species --task regression", "a real number"),
    ("train flowers.csv --target species --task regression --loss softmax_cross_entropy", "--task and --loss must fit"),
    ("train flowers.csv --target species --loss mean_squared_error", "a real number"),
    ("train prices.csv --target price --loss softmax_cross_entropy", "regression"),
    ("train blobs.npz --early-stopping 3 --validation 0", "--early-stopping needs a validation loss"),
    ("train blobs.npz --quiet --warm-up 500", "500", "40"),
    ("train blobs.npz --quiet --batch-size 1", "BatchNorm(100), layer 1"),
    ("train blobs.npz --scaling unit", "scaling 'unit'"),
    ("train blobs.npz --rate 1", "train: No such option", "--rate"),
    ("train blobs.npz more", "train: Got unexpected extra argument (more). Run bnengine train --help"),
    ("train --config nowhere.toml", "train: --config nowhere.toml"),
    ("train --config blobs.npz", "not TOML"),
    ("train blobs.npz --out flowers.csv", "flowers.csv", "--out"),
    ("train blobs.npz --out flowers.csv/r", "flowers.csv/r", "--out"),
    ("train blobs.npz --out full", "full", "notes.txt", "--out"),
    ("train blobs.npz --out r", "train: r holds a run already", "bnengine train --resume r"),
    ("train --resume nowhere", "train: --resume nowhere"),
    ("train --resume full", "train: --resume full", "config.toml"),
    ("train --resume r --epochs 9", "train: --epochs does not go with --resume"),
    ("train digits --resume r", "train: DATA does not go with --resume"),
    ("train --resume r --config c.toml --out x --seed 1", "train: --config, --out, --seed does not go with --resume"),
    ("train --resume alone", "a network without its training. Begin a new run."),
    ("evaluate nowhere blobs.npz", "evaluate: nowhere: no such run or model file in "),
    ("evaluate full blobs.npz", "evaluate: full: the folder is not a run: it has no model.safetensors. Give"),
    ("evaluate begun blobs.npz", "evaluate: begun: the folder has no checkpoint yet."),
    ("evaluate blobs.npz blobs.npz", "no safetensors file"),
    ("evaluate r", "evaluate: Missing argument 'DATA'. Run bnengine evaluate --help"),
    ("evaluate r nowhere.npz", "nowhere.npz"),
    ("evaluate r narrow.npz", "narrow.npz", "(3,)"),
    ("evaluate r strange.npz", "got 4", "2, 5, 7"),
    ("evaluate r bare.npz", "bare.npz", "array y"),
    ("evaluate r flowers.csv", "flowers.csv", "--target COLUMN"),
    ("evaluate r flowers.csv --target species", "'setosa', 'versicolor', 'virginica'"),
    ("evaluate r validation --target y", "evaluate: --target y does not go with validation"),
    ("evaluate plain validation", "evaluate: validation: the run was trained with --validation 0. Name other data."),
    ("evaluate far.safetensors train", "evaluate: train: no config.toml next to far.safetensors"),
    ("evaluate r blobs.npz --backend tpu", "evaluate: --backend", "'tpu'"),
    ("evaluate bare.safetensors blobs.npz", "the model has no preprocessing"),
    ("predict r blobs.npz", "predict: Missing option '-o' / '--output'"),
    ("predict r blobs.npz -o answers.txt", "predict: -o answers.txt: the name must end in .csv or .npz."),
    ("predict r blobs.npz -o flowers.csv", "predict: -o flowers.csv: the file exists. Name another, or replace it"),
    ("predict r blobs.npz -o no/a.csv", "predict: -o no/a.csv: cannot write it (No such file or directory)."),
    ("predict r narrow.npz -o a.csv", "(3,)", "(4,)"),
    ("predict r flowers.csv -o a.csv", "'setosa'"),
    ("info nowhere", "info: nowhere: no such run or model file"),
    ("doctor nowhere", "doctor: nowhere: no such run or model file"),
    ("doctor full", "is not a run"),
    ("doctor", "doctor: Missing argument 'RUN'"),
    ("doctor r nowhere.npz", "nowhere.npz"),
    ("doctor bare.safetensors blobs.npz", "the model has no preprocessing"),
    ("recalibrate nowhere train", "no such run or model file"),
    ("recalibrate r train -o r/model.safetensors --force", "this is the model itself. Name another file."),
    ("recalibrate r train -o new.npz", "must end in .safetensors"),
    ("recalibrate r train -o no/new.safetensors", "its folder does not exist. Create it first."),
    ("recalibrate r train -o untrained.safetensors", "untrained.safetensors exists. Name another with -o"),
    ("recalibrate plain train", "has no BatchNorm"),
    ("gap nowhere train", "no such run or model file"),
    ("gap plain train", "has no BatchNorm"),
    ("gap r nowhere.npz", "nowhere.npz"),
    ("gap r train --target y", "gap: --target y does not go with train"),
    ("gap far.safetensors blobs.npz", "gap: far.safetensors: no config.toml next to far.safetensors"),
    ("report nowhere", "report: nowhere: no such run"),
    ("report r --out r", "config.toml, metrics.jsonl, model.safetensors"),
    ("explain no-such", "explain: no claim 'no-such'. Choose one of bias-cancels,"),
    ("explain shift --seeds 1", "explain: Invalid value for '--seeds': 1 is not in the range x>=2."),
    ("explain --report page", "explain: --report: no claims were named."),
    ("explain shift --report full", "explain: --report full", "notes.txt"),
]  # fmt: skip


@pytest.mark.parametrize("arguments, pieces", [(a, p) for a, *p in MISTAKES], ids=[a for a, *_ in MISTAKES])  # noqa: PT006
def test_a_mistake_is_one_line_and_changes_no_file(
    bnengine: Command, folder: Path, monkeypatch: pytest.MonkeyPatch, arguments: str, pieces: list[str]
) -> None:
    monkeypatch.chdir(folder)
    monkeypatch.setattr("bnengine.cli.explain.examine", None)
    before = contents(folder)
    result = bnengine(*arguments.split())
    assert (result.code, result.out) == (2, "")
    (line,) = result.err.splitlines()
    assert [piece for piece in pieces if piece not in line] == [], line
    assert contents(folder) == before
    assert not Path("runs").exists() or not list(Path("runs").iterdir())


CONFIGS = [
    ('[data]\npaht = "digits"', "[data] has no key 'paht'. It takes path, target, task, validation, scaling."),
    ('[date]\npath = "digits"', "no table [date]. Choose one of data, network, training, run and made_by."),
    ("epochs = 3", "no table [epochs]"),
    ('[training]\nepochs = "3"', ", [training]: epochs must be an integer from 1 to 9223372036854775807, got '3'."),
    ("[training]\nepochs = 2.0", "got 2.0."),
    ("[training]\nepochs = true", "got True."),
    ("[training]\nlearning_rate = true", "learning_rate must be a finite number above 0, got True."),
    ("[training]\nlearning_rate = 0", "learning_rate must be a finite number above 0, got 0."),
    ("[network]\nhidden = 100", "hidden must be a list of widths, got 100."),
    ("[network]\nhidden = [8, 0]", "hidden must be an integer of at least 1, got 0."),
    ("[network]\nbn_decay = 1.0", "bn_decay must be a finite number of at least 0 and below 1, got 1.0. Or take"),
    ('[network]\nnorm = "layer"', "norm must be 'batch', 'normalize-only' or 'none', got 'layer'."),
    ("[data]\npath = 3", "path must be a text, got 3."),
    ("[data]\npath = ", "not TOML"),
]


@pytest.mark.parametrize(("text", "message"), CONFIGS)
def test_a_mistake_in_a_config_names_file_table_and_key(bnengine: Command, text: str, message: str) -> None:
    Path("c.toml").write_text(text + "\n")
    result = bnengine("train", "--config", "c.toml")
    assert result.code == 2
    assert "c.toml" in result.err
    assert message in result.err


def hold(folder: str, ready, release) -> None:
    run = RunFolder.open(Path(folder))
    ready.set()
    release.wait(60)
    run.close()


def test_a_folder_in_which_another_process_trains_is_left_alone(bnengine: Command, npz: str) -> None:
    bnengine("train", npz, *SMALL, "--out", "r")
    context = multiprocessing.get_context("spawn")
    ready, release = context.Event(), context.Event()
    other = context.Process(target=hold, args=(str(Path("r").absolute()), ready, release))
    other.start()
    try:
        assert ready.wait(60)
        result = bnengine("train", "--resume", "r")
    finally:
        release.set()
        other.join(60)
    assert result.code == 2
    assert "another process trains in r" in result.err
    assert bnengine("train", "--resume", "r", "--no-plot").code == 0


def test_kernels_that_are_missing_end_the_command(
    bnengine: Command, npz: str, require, monkeypatch: pytest.MonkeyPatch
) -> None:
    require("array_api_strict")
    result = bnengine("train", npz, *SMALL, "--backend", "array_api_strict", "--kernels", "fused", "--out", "r")
    assert result.code == 2
    assert "'fused'" in result.err
    monkeypatch.setattr(fused.native(), "available", lambda: "no native kernels were built")
    result = bnengine("train", npz, *SMALL, "--threads", "2", "--backend", "numpy", "--out", "r")
    assert result.code == 2
    assert "no native kernels were built" in result.err
    assert not Path("r").exists()


def test_a_failed_run_exits_with_1_and_names_the_cure(bnengine: Command, npz: str) -> None:
    options = ("--epochs", "20", "--learning-rate", "1e30", "--norm", "none", "--optimizer", "sgd", "--no-plot")
    result = bnengine("train", npz, *options, "--out", "r", "--json")
    assert (result.code, result.out) == (1, "")
    message = result.err.splitlines()[-1]
    assert message.startswith("train: fit: 10 steps in a row were not finite")
    assert "lower the learning rate" in message.lower()
    assert message.endswith("the run is in r")


def test_a_defect_of_the_program_keeps_its_traceback(npz: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(train, "set_up", lambda *_: {}["oops"])
    with pytest.raises(KeyError, match="oops"):
        main(["train", npz])
