"""Training data held by the backend: the training is that of uploaded batches, bit for bit, on every library."""

import os
import subprocess
import sys
from typing import Any

import numpy as np
import pytest

from bnengine import data
from bnengine.data import ArraySource, IterableSource, Preprocessing
from bnengine.errors import DataError, InputError
from bnengine.fused import backend_feature
from bnengine.layers import Activation, BatchNorm, Dense
from bnengine.losses import BinaryCrossEntropy, MeanSquaredError, SoftmaxCrossEntropy
from bnengine.network.sequential import Sequential
from bnengine.training import Trainer
from tests.support import ROOT

N = 70


def given(task: str, weighted: bool) -> tuple[Any, ...]:
    rng = np.random.default_rng(5)
    x, weights = rng.standard_normal((N, 6), np.float32), rng.random(N) + 0.1
    y = rng.integers(0, 4, N) if task == "classes" else rng.dirichlet(np.ones(4), N)
    return (x, y, weights) if weighted else (x, y)


LOSSES = {
    "classes": SoftmaxCrossEntropy(class_weights=(1.0, 2.0, 0.5, 3.0)),
    "probabilities": BinaryCrossEntropy(),
    "numbers": MeanSquaredError(),
}


def trainer(backend: Any, loss: Any = "softmax_cross_entropy", dtype: str = "float32", **options: Any) -> Trainer:
    layers = Dense(6, 5), BatchNorm(5), Activation("relu"), Dense(5, 4)
    return Trainer(Sequential(*layers, backend=backend, dtype=dtype, seed=1), loss=loss, progress="quiet", **options)


def bits(made: Trainer) -> dict[str, bytes]:
    state = made.network.state_dict() | {f"step.{k}": v for k, v in made.step.state_dict().items()}
    return {name: array.tobytes() for name, array in state.items()}


@pytest.mark.parametrize(
    ("task", "weighted", "dtype"),
    [("classes", False, "float32"), ("probabilities", True, "float32"), ("numbers", True, "float64")],
)
def test_data_held_by_the_backend_train_as_uploaded_batches_do(backend, task, weighted, dtype):
    """In float64 the divisors must be sums in the same order, too."""
    options: dict[str, Any] = {"dtype": dtype, "accumulate": 3, "clip_norm": 1.0}
    made = [trainer(backend, LOSSES[task], resident=held, **options) for held in (False, True)]
    for one in made:
        one.fit(given(task, weighted), epochs=3, batch_size=16)
    assert made[0].resident is None
    assert made[1].resident is not None
    assert bits(made[0]) == bits(made[1])
    assert made[0].history[-1]["train_loss"] == made[1].history[-1]["train_loss"]


def test_raw_data_are_preprocessed_once_and_given_out_by_index():
    rng = np.random.default_rng(0)
    raw, labels = rng.integers(0, 255, (N, 3, 2), np.uint8), rng.choice(["a", "b", "c", "d"], N)
    chosen = rng.permutation(N)[:50]
    dataset = data.Dataset(raw, labels, "raw", None)
    sources = [
        ArraySource(raw, labels, preprocessing=Preprocessing.fit(dataset, chosen), indices=chosen) for _ in range(2)
    ]
    made = [trainer("numpy", resident=held) for held in (False, True)]
    for one, source in zip(made, sources, strict=True):
        one.fit(source, epochs=2, batch_size=16)
    assert bits(made[0]) == bits(made[1])
    np.testing.assert_array_equal(made[1].resident.data["samples"], chosen)


def test_a_training_stopped_within_an_epoch_goes_on_there(tmp_path):
    """Interrupted after the third of five steps; the data are brought in anew, the cursor put where it was."""
    whole, broken, resumed = (trainer("numpy", resident=True) for _ in range(3))
    whole.fit(given("classes", True), epochs=2, batch_size=16)

    source = ArraySource(*given("classes", True))
    run, steps = broken.step.next, []

    def stopping(sizes: Any, _times: int) -> int:
        if len(steps) == 3:
            raise KeyboardInterrupt
        steps.append(sizes)
        return run(sizes)

    broken.step.next = stopping
    with pytest.raises(KeyboardInterrupt):
        broken.fit(source, epochs=2, batch_size=16)
    broken.save(tmp_path / "state")
    resumed.resume(tmp_path / "state")
    resumed.fit(given("classes", True), epochs=2, batch_size=16)
    assert len(steps) == 3
    assert bits(resumed) == bits(whole)


def test_a_second_fit_with_other_data_holds_those():
    one, other = given("classes", False), tuple(a[::-1].copy() for a in given("classes", False))
    made, fresh = trainer("numpy", resident=True), trainer("numpy", resident=False)
    for trained in (made, fresh):
        trained.fit(one, epochs=1, batch_size=16)
        trained.fit(other, epochs=2, batch_size=16)
    assert bits(made) == bits(fresh)


def test_batches_after_held_data_are_uploaded():
    made, fresh = trainer("numpy", resident="auto"), trainer("numpy", resident=False)
    made.keeps_data = True
    x, y = given("classes", False)
    for trained in (made, fresh):
        trained.fit((x, y), epochs=1, batch_size=16)
        trained.keeps_data = "auto"
        trained.fit(lambda: [(x[:16], y[:16]), (x[16:40], y[16:40])], epochs=2, batch_size=16)
    assert made.resident is None
    assert bits(made) == bits(fresh)


def test_an_iterable_cannot_be_held():
    x, y = given("classes", False)
    made = trainer("numpy", resident=True)
    with pytest.raises(
        InputError, match=r"^fit: resident=True needs an array source, got .*IterableSource.*Pass arrays, or"
    ):
        made.fit(IterableSource(lambda: [(x, y)], None, "float32", "stream"), epochs=1)
    with pytest.raises(InputError, match=r"^Trainer: resident must be 'auto', True or False, got 'yes'\.$"):
        trainer("numpy", resident="yes")


def test_on_a_cpu_data_are_not_copied_unless_requested(monkeypatch):
    x, y = given("classes", False)
    made = trainer("numpy")
    made.fit((x, y), epochs=1, batch_size=16)
    native = backend_feature("numpy", "replayer") is not None
    assert (made.resident is not None) == native
    assert not native or np.shares_memory(made.resident.data["x"], x)
    monkeypatch.setattr("bnengine.training.resident.backend_feature", lambda *_: None)
    made = trainer("numpy")
    made.fit((x, y), epochs=1, batch_size=16)
    assert made.resident is None
    made = trainer("numpy", resident=True)
    made.fit((x, y), epochs=1, batch_size=16)
    assert not np.shares_memory(made.resident.data["x"], x)


@pytest.mark.parametrize("resident", [False, True])
def test_a_step_whose_rows_all_have_weight_zero_counts_for_nothing(resident):
    x, y, weights = given("classes", True)
    made = trainer("numpy", resident=resident)
    before = made.network.named_parameters()["0.W"].copy()
    assert made.fit((x, y, weights * 0), epochs=1, batch_size=16)[0]["train_loss"] == 0
    np.testing.assert_array_equal(made.network.named_parameters()["0.W"], before)


def test_a_value_too_large_for_the_network_is_found_on_loading():
    x, y = given("classes", False)
    wide = x.astype(np.float64)
    wide[60, 2] = 1e300
    with pytest.raises(DataError, match="too large for float32"):
        trainer("numpy", resident=True).fit((wide, y), epochs=1, batch_size=16)


KINDS = ["bool", "u1", "u2", "u4", "i1", "i2", "i4", "i8", "f2", "f4", "f8"]


def raw_source(kind: str, scaling: str, dtype: str, shape: tuple[int, ...] = (3, 2)) -> ArraySource:
    """Labeled rows of a dtype, half of them for training."""
    rng = np.random.default_rng(3)
    x = (rng.standard_normal((N, *shape)) * 60).astype(kind) if kind != "bool" else rng.random((N, *shape)) < 0.5
    labels, chosen = rng.choice(["a", "b", "c", "d"], N), rng.permutation(N)[:50]
    fitted = Preprocessing.fit(data.Dataset(x, labels, "raw"), chosen, scaling=scaling)
    return ArraySource(x, labels, preprocessing=fitted, indices=chosen, dtype=dtype)


# Each kind in both dtypes, each scaling in both; the walk over contracts crosses them op by op.
@pytest.mark.parametrize(
    ("kind", "scaling", "dtype"),
    [
        (kind, ("center", "standardize", "none")[(i + j) % 3], dtype)
        for i, kind in enumerate(KINDS)
        for j, dtype in enumerate(("float32", "float64"))
    ],
)
def test_raw_data_gathered_in_place_have_the_bits_of_batches(kind, scaling, dtype):
    made = [trainer("numpy", dtype=dtype, resident=held) for held in (False, "auto")]
    for one in made:
        source = raw_source(kind, scaling, dtype)
        one.fit(source, epochs=2, batch_size=16)
    assert bits(made[0]) == bits(made[1])
    if backend_feature("numpy", "replayer") is not None:
        resident = made[1].resident
        assert np.shares_memory(resident.data["x"], source.raw().x)
        assert {mode.how for mode in made[1].step.modes()} == {"one call"}


def test_integers_divided_by_the_largest_are_gathered_so(tmp_path):
    np.save(tmp_path / "x.npy", np.random.default_rng(0).integers(0, 256, (N, 6), np.uint8))
    x, labels = np.load(tmp_path / "x.npy", mmap_mode="r"), np.arange(N) % 4
    fitted = Preprocessing.fit(data.Dataset(x, labels, "raw"), scaling="unit")
    made = [trainer("numpy", resident=held) for held in (False, "auto")]
    for one in made:
        one.fit(ArraySource(x, labels, preprocessing=fitted), epochs=2, batch_size=16)
    assert bits(made[0]) == bits(made[1])


@pytest.mark.parametrize(
    "change", [np.asfortranarray, lambda x: x[::-1], lambda x: x.astype(">f4"), lambda x: x[:, ::-1]]
)
def test_data_in_another_order_are_taken_by_batches(change):
    x, y = given("classes", False)
    made = [trainer("numpy", resident=held) for held in (False, "auto")]
    for one in made:
        one.fit((change(x), y), epochs=2, batch_size=16)
    assert bits(made[0]) == bits(made[1])
    assert made[1].resident is None


@pytest.mark.parametrize("bad", [np.nan, np.inf, 1e300])
def test_what_a_dtype_cannot_hold_is_found_before_the_first_step(bad):
    x, labels = np.random.default_rng(0).standard_normal((N, 6)), np.arange(N) % 4
    fitted = Preprocessing.fit(data.Dataset(x, labels, "raw"))
    x[41, 2] = bad
    for held in (False, "auto"):
        with pytest.raises(DataError, match="row 41, feature 2 is"):
            trainer("numpy", resident=held).fit(ArraySource(x, labels, preprocessing=fitted), epochs=1, batch_size=N)


LARGE = """
import sys
import numpy as np
import bnengine as bn

def own():
    with open("/proc/self/status") as lines:
        return max(int(line.split()[1]) for line in lines if line.startswith("RssAnon")) >> 10

folder = sys.argv[1]
x, y = np.load(folder + "/x.npy", mmap_mode="r"), np.load(folder + "/y.npy")
fitted = bn.Preprocessing.fit(bn.data.Dataset(x, y), scaling="unit")
network = bn.Sequential(bn.Dense(1000, 8), bn.BatchNorm(8), bn.Activation("relu"), bn.Dense(8, 2))
trainer = bn.Trainer(network, progress="quiet")
peak, step = [0], trainer.step.next
def watched(sizes, _times):
    done = step(sizes)
    peak[0] = max(peak[0], own())
    return done
trainer.step.next = watched
before = own()
trainer.fit(bn.ArraySource(x, y, preprocessing=fitted), epochs=1, batch_size=5000)
print(peak[0] - before, trainer.history[0]["train_accuracy"])
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_training_on_a_mapped_file_takes_little_memory(tmp_path):
    if backend_feature("numpy", "replayer") is None:
        pytest.skip("without native kernels batches are prepared one by one")
    rows = 200_000
    y = np.arange(rows) % 2
    x = np.lib.format.open_memmap(tmp_path / "x.npy", mode="w+", dtype=np.uint8, shape=(rows, 1000))
    x[: rows // 100, 3] = 255 * y[: rows // 100]
    x.flush()
    np.save(tmp_path / "y.npy", y)
    command, environment = [sys.executable, "-c", LARGE, tmp_path], {**os.environ, "PYTHONPATH": str(ROOT)}
    ran = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert ran.returncode == 0, ran.stderr
    megabytes, accuracy = ran.stdout.split()
    assert 0 < int(megabytes) < 60, "all of it as float32 were 800, a batch is 20"
    assert float(accuracy) >= 0.4
