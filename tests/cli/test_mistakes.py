"""What a user can do wrong on the command line: a sentence with the cure, exit code 2, nothing left behind."""

import multiprocessing
from pathlib import Path

import numpy as np
import pytest

from bnengine.data.loading import with_target_column
from bnengine.optim.optimizers import OPTIMIZERS
from bnengine.storage.runs import RunFolder
from tests.cli.conftest import SMALL, Command

TRAIN = [
    ("", "train: there is no data to train on; try bnengine train digits"),
    ("nowhere.csv --target a", "nowhere.csv: there is no such file or folder (looked in"),
    ("flowers.csv", "flowers.csv: name the target column (--target COLUMN); the columns are 'a', 'b', 'species'"),
    ("flowers.csv --target sort", "there is no target column 'sort'. The columns are 'a', 'b', 'species'"),
    ("blobs.npz --target a", f"target column 'a' given, which only {with_target_column()} files have"),
    ("blobs.npz --epochs 0", "train: Invalid value for '--epochs': '0' is not a whole number from 1 up"),
    ("blobs.npz --epochs few", "'few' is not a whole number from 1 up"),
    ("blobs.npz --seed -1", "'-1' is not a whole number from 0 up"),
    ("blobs.npz --seed 99999999999999999999", "'99999999999999999999' is not a whole number from 0 up"),
    ("blobs.npz --hidden 8,x", "'8,x' is not a list of widths from 1 up such as 100,100, or none"),
    ("blobs.npz --hidden 8,0", "'8,0' is not a list of widths"),
    ("blobs.npz --norm layer", "'layer' is not one of batch, normalize-only, none"),
    ("blobs.npz --activation swish", "'swish' is not one of relu, leaky_relu, "),
    ("blobs.npz --optimizer nonesuch", f"'nonesuch' is not one of {', '.join(OPTIMIZERS)}"),
    ("blobs.npz --loss hinge", "'hinge' is not one of auto, softmax_cross_entropy"),
    ("blobs.npz --schedule linear", "'linear' is not one of constant, step, cosine, one-cycle, plateau"),
    ("blobs.npz --scaling big", "'big' is not one of auto, center"),
    ("blobs.npz --dtype float16", "'float16' is not one of float32, float64"),
    ("blobs.npz --precision half", "'half' is not one of highest, tf32, bfloat16, float16"),
    (
        "blobs.npz --precision tf32 --backend numpy",
        "train: --precision 'tf32' is how tensor cores of a GPU multiply, and the backend numpy multiplies arrays as "
        "they are; take --precision 'highest', or --backend 'cupy'",
    ),
    (
        "blobs.npz --precision float16 --dtype float64",
        "--precision 'float16' does not go with dtype 'float64'; take --dtype 'float32', or --precision 'highest'",
    ),
    ("blobs.npz --dropout 1", "'1' is not a number from 0 up and below 1"),
    ("blobs.npz --learning-rate 0", "'0' is not a number above 0"),
    ("blobs.npz --learning-rate nan", "'nan' is not a number above 0"),
    ("blobs.npz --learning-rate inf", "'inf' is not a number above 0"),
    ("blobs.npz --validation 1", "'1' is not a number from 0 up and below 1"),
    ("blobs.npz --bn-decay all", "'all' is not a number from 0 up and below 1, or exact"),
    ("blobs.npz --backend tpu", "train: --backend: there is no backend 'tpu'; take one of auto, numpy, cupy"),
    ("blobs.npz --momentum 0.9", "train: --momentum 0.9 is for --optimizer sgd or rmsprop, not for adam; leave it out"),
    ("blobs.npz --loss binary_cross_entropy", "is for 2 classes, the data have 3; take softmax_cross_entropy"),
    ("prices.csv --target price --label-smoothing 0.1", "--label-smoothing 0.1 is for --loss softmax_cross_entropy"),
    ("flowers.csv --target species --loss mean_squared_error", "A regression needs real numbers"),
    ("prices.csv --target price --loss softmax_cross_entropy", "For real targets train a regression"),
    ("blobs.npz --early-stopping 3 --validation 0", "--early-stopping watches the validation loss, and --validation 0"),
    ("blobs.npz --warm-up 500", "WarmUp: 500 steps of warm-up fill the run of 40"),
    ("blobs.npz --batch-size 1", "BatchNorm(100), layer 1: one value per channel in training"),
    ("blobs.npz --scaling unit", "scaling 'unit' divides integers by their largest value"),
    ("blobs.npz --rate 1", "train: No such option '--rate'"),
    ("blobs.npz more", "train: Got unexpected extra argument (more)"),
    ("--config nowhere.toml", "train: --config nowhere.toml: it cannot be read (No such file or directory)"),
    ("--config blobs.npz", "this is not TOML"),
    (
        "blobs.npz --out flowers.csv",
        "train: the folder flowers.csv cannot be created (it is a file). Name another with --out",
    ),
    ("blobs.npz --out flowers.csv/r", "cannot be created (Not a directory). Name another with --out"),
    ("blobs.npz --out full", "train: full is not empty (it holds notes.txt). Name another folder with --out"),
    ("--resume nowhere", "train: --resume nowhere: there is no such folder (looked in"),
    ("--resume full", "train: --resume full: this is not the folder of a run: it has no config.toml"),
]


@pytest.mark.usefixtures("npz", "table", "prices")
@pytest.mark.parametrize(("arguments", "told"), TRAIN)
def test_a_mistake_in_a_call_of_train_is_told_with_exit_code_2(bnengine: Command, arguments: str, told: str) -> None:
    Path("full").mkdir()
    Path("full/notes.txt").write_text("mine")
    result = bnengine("train", *arguments.split(), "--no-plot")
    assert told in result.err
    assert result.code == 2
    assert not Path("runs").exists() or not list(Path("runs").iterdir())
    assert [p.name for p in Path("full").iterdir()] == ["notes.txt"]


CONFIGS = [
    ('[data]\npaht = "digits"', "c.toml: [data] has no key 'paht'; it takes path, target, validation, scaling"),
    ('[date]\npath = "digits"', "c.toml: there is no table [date]; there are data, network, training, run and made_by"),
    ("epochs = 3", "c.toml: there is no table [epochs]"),
    ('[training]\nepochs = "3"', "c.toml: [training] epochs: '3' is not a whole number from 1 up"),
    ("[training]\nepochs = 2.0", "[training] epochs: 2.0 is not a whole number from 1 up"),
    ("[training]\nlearning_rate = true", "[training] learning_rate: True is not a number above 0"),
    ("[network]\nhidden = 100", "[network] hidden: 100 is not a list of widths"),
    ('[network]\nnorm = "layer"', "[network] norm: 'layer' is not one of batch, normalize-only, none"),
    ("[data]\npath = 3", "[data] path: 3 is not a text"),
    ("[data]\npath = ", "train: --config c.toml: this is not TOML"),
]


@pytest.mark.parametrize(("text", "told"), CONFIGS)
def test_a_mistake_in_a_config_names_file_table_and_key(bnengine: Command, text: str, told: str) -> None:
    Path("c.toml").write_text(text + "\n")
    result = bnengine("train", "--config", "c.toml")
    assert result.code == 2
    assert told in result.err


def test_a_folder_holds_one_run(bnengine: Command, npz: str) -> None:
    bnengine("train", npz, *SMALL, "--out", "r")
    before = {p.name: p.read_bytes() for p in Path("r").iterdir()}
    result = bnengine("train", npz, *SMALL, "--out", "r")
    assert result.code == 2
    assert (
        "train: r holds a run already. Continue it with bnengine train --resume r, or name another folder" in result.err
    )
    assert {p.name: p.read_bytes() for p in Path("r").iterdir()} == before


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
    assert "another process trains in r now" in result.err
    assert bnengine("train", "--resume", "r", "--no-plot").code == 0


USE = [
    ("evaluate nowhere blobs.npz", "evaluate: nowhere: there is no such run or model file (looked in"),
    ("evaluate full blobs.npz", "evaluate: full: the folder is no run, it has no model.safetensors"),
    ("evaluate begun blobs.npz", "evaluate: begun: the folder has not saved a checkpoint yet"),
    ("evaluate blobs.npz blobs.npz", "no safetensors file"),
    ("evaluate r", "evaluate: Missing argument 'DATA'"),
    ("evaluate r nowhere.npz", "nowhere.npz: there is no such file or folder"),
    (
        "evaluate r narrow.npz",
        "narrow.npz: the samples have shape (3,), 3 features. The model was trained on samples of",
    ),
    ("evaluate r strange.npz", "has the label 4, which is not among the model's classes: 2, 5, 7"),
    ("evaluate r bare.npz", "It needs an array y with the targets"),
    ("evaluate r flowers.csv", "flowers.csv: name the target column (--target COLUMN)"),
    (
        "evaluate r flowers.csv --target species",
        "the labels are strings ('setosa', 'versicolor', 'virginica'), the model's",
    ),
    ("evaluate r validation --target y", "--target y cannot be given with validation, the run's own data"),
    ("evaluate r blobs.npz --backend tpu", "evaluate: --backend: there is no backend 'tpu'"),
    ("evaluate bare.safetensors blobs.npz", "the model carries no preprocessing"),
    ("predict r blobs.npz", "predict: Missing option '-o' / '--output'"),
    ("predict r blobs.npz -o answers.txt", "predict: -o answers.txt: the file's name must end in .csv or .npz"),
    (
        "predict r blobs.npz -o flowers.csv",
        "predict: -o flowers.csv: the file is there already; name another, or replace it",
    ),
    ("predict r blobs.npz -o no/a.csv", "predict: -o no/a.csv: it cannot be written (No such file or directory)"),
    ("predict r narrow.npz -o a.csv", "3 features. The model was trained on samples of shape (4,), 4 features"),
    ("predict r flowers.csv -o a.csv", "'setosa' is not a number. Features must be numbers"),
    ("info nowhere", "info: nowhere: there is no such run or model file"),
    ("inform", "bnengine: No such command 'inform'"),
]


@pytest.mark.usefixtures("table")
@pytest.mark.parametrize(("arguments", "told"), USE)
def test_a_mistake_in_the_use_of_a_run_is_told_with_exit_code_2(
    bnengine: Command, npz: str, blobs, arguments: str, told: str
) -> None:
    import bnengine as bn

    x, y = blobs
    np.savez("narrow.npz", x=x[:, :3], y=y)
    np.savez("strange.npz", x=x, y=np.where(y == 5, 4, y))
    np.savez("bare.npz", x=x)
    network = bn.Sequential(bn.Dense(4, 3))
    bn.save("bare.safetensors", network)
    Path("full").mkdir()
    bnengine("train", npz, *SMALL, "--epochs", "1", "--out", "r")
    Path("begun").mkdir()
    Path("begun/config.toml").write_text("")
    before = sorted(p.name for p in Path.cwd().iterdir())
    result = bnengine(*arguments.split())
    assert told in result.err
    assert result.code == 2
    assert sorted(p.name for p in Path.cwd().iterdir()) == before


def test_a_failed_run_exits_with_1_and_names_the_layer_and_the_folder(bnengine: Command, npz: str) -> None:
    options = ("--epochs", "20", "--learning-rate", "1e30", "--norm", "none", "--optimizer", "sgd", "--no-plot")
    result = bnengine("train", npz, *options, "--out", "r", "--json")
    assert result.code == 1
    assert result.out == ""
    message = result.err.splitlines()[-1]
    assert message.startswith("train: fit: 10 steps in a row were not finite; ")
    assert "lower the learning rate" in message
    assert message.endswith("the run is in r")


def test_a_defect_of_the_program_keeps_its_traceback(npz: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from bnengine.cli import main, train

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(train, "set_up", lambda *_: {}["oops"])
    with pytest.raises(KeyError, match="oops"):
        main(["train", npz])
