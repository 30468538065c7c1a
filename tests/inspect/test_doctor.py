"""The doctor names every planted fault from its threshold on, and nothing below it; healthy networks have no errors."""

from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bnengine.data import load_digits
from bnengine.errors import InputError
from bnengine.inspect import Finding, doctor
from bnengine.lab.explain.nets import look
from bnengine.layers import Activation, BatchNorm, Dense, Dropout, Layer, Residual
from bnengine.network.sequential import Sequential
from bnengine.ops.activations import NONLINEAR
from bnengine.optim.optimizers import SGD, Adam, AdamW, Optimizer, RMSprop
from bnengine.storage import saving
from bnengine.training import Trainer
from tests.inspect.patients import FAULTS, FEATURES, WIDTH, Fault, Patient, far_beta, set_at, silent
from tests.support import require

STRENGTHS = [
    pytest.param(fault, strength, id=f"{fault.id}-{fault.plant.__name__}-{i}")
    for fault in FAULTS
    for i, strength in enumerate(fault.strengths)
]


def test_a_healthy_network_has_no_findings() -> None:
    assert Patient().findings() == []
    assert Patient(shown=False).findings() == []


@pytest.mark.parametrize(("fault", "strength"), STRENGTHS)
def test_a_fault_is_named_from_its_threshold_on(fault: Fault, strength: Any) -> None:
    patient = Patient()
    fault.plant(patient, strength)
    found = [finding for finding in patient.findings() if finding.id == fault.id]
    assert bool(found) == bool(fault.strengths[strength])
    if found:
        assert found[0].severity == fault.strengths[strength]
        assert found[0].layer.split(", ")[0] == fault.layer
        assert found[0].numbers
        assert found[0].says
        assert found[0].cure


def test_a_fault_below_its_threshold_is_no_error() -> None:
    for fault in FAULTS:
        patient = Patient()
        fault.plant(patient, next(iter(fault.strengths)))
        assert [f.id for f in patient.findings() if f.severity == "error"] == [], fault.id


# Faults that hide each other.
EXCLUSIVE = (
    {"last-batch-small", "batches-small"},
    {"variance-near-eps", "statistics-never-collected"},
)
# Planted strongly, since their thresholds depend on the batch and the decay, and so on other faults.
DEPENDENT = "decay-on-affine", "effective-learning-rate", "dropout-before-norm", "decay-slow"


def test_two_faults_at_once_are_both_named() -> None:
    pairs = 0
    for one, other in combinations(FAULTS, 2):
        ids = {one.id, other.id}
        if len(ids) < 2 or ids in EXCLUSIVE:
            continue
        patient = Patient()
        for fault in (one, other):
            fault.plant(patient, list(fault.strengths)[-1 if fault.id in DEPENDENT else 1])
        if far_beta in (one.plant, other.plant) and "uncentred-inputs" in ids:
            continue  # one needs data, the other their absence
        assert ids <= {finding.id for finding in patient.findings()}, ids
        pairs += 1
    assert pairs >= 100


def test_errors_come_first() -> None:
    patient = Patient(bias=True, rest=2)
    patient.changes.append(set_at(1, "statistics", (0, slice(None)), 0.0))
    assert [f.severity for f in patient.findings()] == ["error", "warning", "note"]


@pytest.mark.parametrize("optimizer", [Adam(), AdamW(weight_decay=0), RMSprop()])
def test_a_cancelled_bias_is_a_warning_if_the_optimizer_moves_it(optimizer: Optimizer) -> None:
    found = Patient(bias=True, optimizer=optimizer).findings()
    assert [(f.id, f.severity) for f in found] == [("cancelled-bias", "warning")]
    assert found[0].numbers["units"] <= 100


def checked(*layers: Layer) -> list[Finding]:
    """The findings of a network with collected statistics."""
    network = Sequential(*layers, backend="numpy")
    network.statistics.array[0, :] = 1
    return doctor(network)


def test_beta_cancels_before_a_dense_and_another_batch_norm() -> None:
    layers = Dense(8, 16), BatchNorm(16), Dense(16, 16), BatchNorm(16), Activation("relu"), Dense(16, 3)
    (found,) = [f for f in checked(*layers) if f.id == "cancelled-bias"]
    assert found.layer == "1"
    assert "beta=False" in found.cure


def test_a_bias_inside_a_residual_is_measured_too() -> None:
    body = Dense(8, 8, bias=True), BatchNorm(8), Activation("relu"), Dense(8, 8, bias=True), BatchNorm(8)
    found = checked(Residual(*body), Activation("relu"), Dense(8, 3))
    assert [f.layer for f in found if f.id == "cancelled-bias"] == ["0.0", "0.3"]


PLACES = [{"precision": "float16"}, {"dtype": "float64"}, {"backend": "torch"}, {"backend": "array_api_strict"}]


@pytest.mark.parametrize("options", PLACES, ids=str)
def test_findings_agree_in_other_precisions_and_libraries(options: dict[str, str]) -> None:
    if "backend" in options:
        require(options["backend"])
    patient = Patient(bias=True, decayed=5.0, network_options=options)
    silent(patient, -1)
    dead = [("dead-units", "1"), ("dead-units", "4")]  # later units get no signal, and no gradient returns
    assert [(f.id, f.layer) for f in patient.findings()] == dead
    patient.changes.clear()
    found = {(f.id, f.layer) for f in patient.findings()}
    assert found == {("cancelled-bias", "0"), ("effective-learning-rate", "0"), ("effective-learning-rate", "3")}


def test_a_bias_counts_if_running_statistics_normalize() -> None:
    patient = Patient(bias=True)
    patient.changes.append(lambda network, _: network.freeze("normalization"))
    assert "cancelled-bias" not in {f.id for f in patient.findings()}


def test_a_bias_that_is_measured_wrong_is_not_called_cancelled(monkeypatch: pytest.MonkeyPatch) -> None:
    """If the backward takes statistics as constant, as a broken batch norm would, the gradient counts."""
    from bnengine import ops

    backward = ops.normalize_backward

    def broken(*args: Any, **options: Any) -> Any:
        return backward(*args, **options | {"batch_statistics": False})

    monkeypatch.setattr(ops, "normalize_backward", broken)
    assert "cancelled-bias" not in {f.id for f in Patient(bias=True).findings()}


@pytest.mark.parametrize("name", ["keras", "flax", "tf", "chainer", "torch"])
def test_a_network_of_another_convention_is_reported_by_its_name(name: str) -> None:
    found = checked(Dense(8, 16), BatchNorm.from_convention(name, 16), Activation("relu"), Dense(16, 3))
    assert [f.id for f in found] == ([] if name == "torch" else ["other-convention"])  # whose defaults are ours
    assert all(f"'{name}'" in f.cure for f in found)


def test_parameters_that_are_not_finite_are_named() -> None:
    patient = Patient()
    patient.changes.append(lambda network, _: network.named_parameters()["3.W"].fill(np.nan))
    assert [(f.id, f.layer) for f in patient.findings() if f.severity == "error"] == [("parameters-not-finite", "3")]


def test_statistics_without_a_start_are_not_called_slow() -> None:
    for rows in (256.0, 5000.0):  # counts that 20 steps do not make
        patient = Patient(steps=20)
        assert "decay-slow" in {f.id for f in patient.findings()}
        patient.changes += [set_at(norm, "statistics", (0, slice(None)), rows) for norm in (0, 1)]
        assert patient.findings() == []
    patient = Patient(steps=20)
    settings = {"steps": 20, "batch_size": 64, "rows": 1280}
    assert {f.id for f in doctor(patient.network(), patient.x, None, settings)} == {"decay-slow"}
    assert doctor(patient.network(), patient.x, None, settings | {"recalibrated": True}) == []
    for least, named in ((0.54, ["1", "4"]), (0.53, ["4"])):  # 0.9^6 = 0.53 is the least variance with a start of 1
        patient = Patient(steps=6)
        patient.changes.append(set_at(0, "statistics", (2, 5), least))
        assert [f.layer for f in patient.findings() if f.id == "decay-slow"] == named


def test_a_joined_last_row_is_no_small_batch() -> None:
    assert Patient(rest=1).findings() == []


def test_a_unit_that_a_batch_can_wake_is_not_dead() -> None:
    """A single outlier is sqrt(m - 1) deviations from the mean; with a row that joins, m is 65."""
    for rest, beta in ((0, -7.93), (1, -7.99)):
        patient = Patient(rest=rest)
        far_beta(patient, beta)
        assert patient.findings() == []
        outlier = np.zeros((64 + rest, FEATURES), np.float32)
        outlier[0] = 1000 * np.sign(patient.network().named_parameters()["0.W"][:, 5])
        seen, _ = look(patient.network(), outlier, training=True)
        assert next(one.y for one in seen if isinstance(one.layer, BatchNorm))[0, 5] > 0
        far_beta(patient, beta - 0.02)
        assert [finding.id for finding in patient.findings()] == ["dead-units"]


def test_momentum_accumulates_the_decay() -> None:
    """1,000 steps at a rate of 0.1 from 1, by the formula of the optimizer, with the gradient of the decay alone."""
    value, velocity = 1.0, 0.0
    for _ in range(1000):
        velocity = 0.9 * velocity + 1e-4 * value
        value -= 0.1 * velocity
    patient = Patient(decays=True, optimizer=SGD(momentum=0.9, weight_decay=1e-4))
    found = {(f.id, f.layer): f.numbers for f in patient.findings()}
    assert found["decay-on-affine", "1"]["lost"] == pytest.approx(1 - value, rel=0.01)
    rates = found["effective-learning-rate", "0"]
    assert rates["raised"] == pytest.approx(1 / value**2, rel=0.01)
    assert rates["effective_rate"] == pytest.approx(10 * 0.1 / rates["length"] ** 2)


def test_the_share_of_the_start_is_the_error_of_the_running_mean() -> None:
    """A channel of mean 5 and variance 1 after 6 steps: running mean 5 (1 - .9^6), so off by 5 .9^6."""
    network = Sequential(Dense(8, WIDTH), BatchNorm(WIDTH), Dense(WIDTH, 3), backend="numpy")
    left = 0.9**6
    network.named_statistics()["1.statistics"][...] = np.asarray([[384.0], [5 * (1 - left)], [1.0]])
    (found,) = doctor(network, settings={"steps": 6, "batch_size": 64})
    assert found.numbers["left"] == pytest.approx(left)
    assert found.numbers["mean_off"] == pytest.approx(5 * left, rel=1e-4)


def test_the_network_does_not_change() -> None:
    network = Patient(bias=True).network()
    before, changes = network.state_dict(), network.changes.count
    doctor(network, Patient().x, settings={"steps": 10, "batch_size": 64, "optimizer": "adamw"})
    after = network.state_dict()
    assert all(np.array_equal(before[name], after[name]) for name in before)
    assert network.changes.count == changes


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"settings": {"speed": 3}}, "doctor: settings has no 'speed'"),
        ({"settings": {"steps": -1}}, "doctor: settings: steps must be a finite number of at least 0, got -1"),
        ({"training": 3}, "doctor: training must be a Trainer or a saved one, got a int"),
        ({"data": np.zeros((1, FEATURES), np.float32)}, "doctor: a variance needs two rows"),
        ({"data": np.zeros((9, 5), np.float32)}, "the input must have . features, got 5"),
    ],
)
def test_mistakes_have_a_cure(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        doctor(Patient().network(), **options)


def test_a_trainer_and_its_checkpoint_give_the_same_findings(tmp_path: Path) -> None:
    x, y = _blobs(np.random.default_rng(0))
    network = Sequential(Dense(2, 8, bias=True), BatchNorm(8), Activation("relu"), Dense(8, 3), backend="numpy")
    trainer = Trainer(network, SGD(weight_decay=0.05), learning_rate=0.5, progress="quiet")
    trainer.fit((x, y), epochs=2, batch_size=298 // 6)
    trainer.save(tmp_path / "m.safetensors")
    by_trainer = doctor(network, (x, y), trainer)
    saved = saving.read(tmp_path / "m.safetensors")
    by_file = doctor(saving.load(tmp_path / "m.safetensors"), (x, y), saved, {"rows": 298})
    assert {f.id for f in by_trainer} == {"decay-slow", "cancelled-bias", "effective-learning-rate", "last-batch-small"}
    assert by_trainer == by_file


def test_a_checkpoint_records_which_parameters_decayed(tmp_path: Path) -> None:
    x, y = _blobs(np.random.default_rng(0))

    def made(*, decays: bool) -> Trainer:
        norm = BatchNorm(8)
        assert norm.gamma is not None
        norm.gamma.decays = decays
        network = Sequential(Dense(2, 8), norm, Activation("relu"), Dense(8, 3), backend="numpy")
        return Trainer(network, SGD(weight_decay=0.05), learning_rate=0.5, progress="quiet")

    for decays in (True, False):
        trainer = made(decays=decays)
        trainer.fit((x, y), epochs=10, batch_size=50)
        trainer.save(tmp_path / "m.safetensors")
        loaded, saved = saving.load(tmp_path / "m.safetensors"), saving.read(tmp_path / "m.safetensors")
        live, by_file = [[f for f in doctor(*of) if f.id == "decay-on-affine"] for of in (
            (trainer.network, None, trainer), (loaded, None, saved)
        )]  # fmt: skip
        assert live == by_file
        assert [f.layer for f in by_file] == (["1"] if decays else [])
        assert not decays or "is on gamma:" in by_file[0].says
    with pytest.raises(InputError, match=r"has decayed \['0\.W', '3\.W'\], got .*'1\.gamma'"):
        made(decays=True).resume(tmp_path / "m.safetensors")


def _digits(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    digits = load_digits()
    rows = rng.permutation(len(digits))[:600]
    x = np.asarray(digits.x, np.float64).reshape(len(digits), -1)[rows]
    return _ready((x - x.mean(axis=0)) / (x - x.mean(axis=0)).std()), np.unique(
        np.asarray(digits.y)[rows], return_inverse=True
    )[1]


def _table(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Columns of different kinds and units, standardized; two classes."""
    age, income = rng.uniform(18, 90, 400), rng.lognormal(10, 0.5, 400)
    member, visits = rng.integers(0, 2, 400), rng.poisson(3, 400)
    y = (age / 50 + member + 0.3 * visits + rng.normal(0, 0.3, 400) > 2.3).astype(np.int64)
    x = np.stack([age, income, member, visits], axis=1)
    return _ready((x - x.mean(axis=0)) / x.std(axis=0)), y


def _blobs(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    y = np.arange(298) % 3
    x = rng.normal(size=(298, 2)) + 3 * np.asarray([[0, 0], [1, 0], [0, 1]])[y]
    return _ready(x - x.mean(axis=0)), y


def _ready(x: np.ndarray) -> np.ndarray:
    return x.astype(np.float32)


def _drawn(rng: np.random.Generator, features: int, classes: int) -> Sequential:
    """A network as people build them."""
    width, activation = int(rng.integers(8, 48)), str(rng.choice(NONLINEAR))
    decay = [0.9, 0.95, None][rng.integers(3)]
    layers: list[Layer] = []
    for inputs in (features, *[width] * int(rng.integers(0, 3))):
        layers += [Dense(inputs, width), BatchNorm(width, decay=decay), Activation(activation)]
        layers += [Dropout(0.1)] if rng.integers(4) == 0 else []
    if rng.integers(3) == 0:
        body = Dense(width, width), BatchNorm(width, decay=decay), Activation(activation), Dense(width, width)
        layers += [Residual(*body, BatchNorm(width, decay=decay)), Activation(activation)]
    return Sequential(*layers, Dense(width, classes), backend="numpy", seed=int(rng.integers(1000)))


@pytest.mark.parametrize("make", [_digits, _table, _blobs])
def test_seven_random_healthy_networks_have_no_errors(make: Any) -> None:
    optimizers: list[tuple[Optimizer, float]] = [
        (SGD(momentum=0.9), 0.05), (SGD(weight_decay=1e-4), 0.2), (Adam(), 0.003), (AdamW(), 0.005), (RMSprop(), 0.002),
    ]  # fmt: skip
    for seed in range(7):
        rng = np.random.default_rng((seed, 1))
        x, y = make(rng)
        network = _drawn(rng, x.shape[1], int(y.max()) + 1)
        optimizer, rate = optimizers[seed % len(optimizers)]
        trainer = Trainer(network, optimizer, learning_rate=rate, progress="quiet")
        batch = int(rng.choice([16, 32, 50]))
        trainer.fit((x, y), epochs=max(3, 100 * batch // len(x)), batch_size=batch)
        for data in (None, (x, y)):
            assert [f for f in doctor(network, data, trainer) if f.severity == "error"] == [], (seed, network)
