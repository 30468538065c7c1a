"""Trainings in 16 bits: as good as in float32, a 16-bit copy that never lags, and the same bits after a resumption."""

from typing import Any

import numpy as np
import pytest

import bnengine as bn
from bnengine.data import Batch
from bnengine.errors import CheckpointError
from bnengine.optim.optimizers import OPTIMIZERS
from bnengine.training import Step
from tests.training.support import After, blobs, net, network_bits, outcome, trainer

NARROW = ("float16", "bfloat16")
# Of the last 360 digits, after 8 epochs from seed 0: 331 in float32.
REACHED, TOLERATED = 331 / 360, 3 / 360


@pytest.fixture(params=NARROW)
def precision(request: pytest.FixtureRequest, require: Any) -> str:
    if request.param == "bfloat16":
        require("ml_dtypes")
    return str(request.param)


def digits(precision: str, epochs: int) -> list[dict[str, Any]]:
    data = bn.load_digits()
    x, y = np.asarray(data.x, np.float32).reshape(-1, 64) / 16, np.asarray(data.y)
    layers = bn.Dense(64, 64), bn.BatchNorm(64), bn.Activation("relu"), bn.Dropout(0.1), bn.Dense(64, 10)
    network = bn.Sequential(*layers, backend="numpy", precision=precision, seed=0)
    made = trainer(network, learning_rate=0.005, clip_norm=5.0)
    return made.fit((x[:1437], y[:1437]), epochs=epochs, validation=(x[1437:], y[1437:]))


@pytest.mark.parametrize("name", ["highest", *NARROW])
def test_digits_are_learnt_as_well_in_16_bits_as_in_32(name, require):
    if name == "bfloat16":
        require("ml_dtypes")
    record = digits(name, 8)[-1]
    assert abs(record["valid_accuracy"] - REACHED) <= TOLERATED
    assert record["skipped_steps"] == 0


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_the_16_bit_copy_follows_the_parameters_not_the_average(optimizer, precision):
    network = net(precision=precision)
    network.freeze("parameters", "0.W")
    t = trainer(network, optimizer, average=bn.Average(0.5))
    x, y = blobs()
    seen = []

    def look(_: Any) -> None:
        assert network.copy16.array.tobytes() == network.parameters.array.astype(network.copy16.array.dtype).tobytes()
        seen.append(network.copy16.array.tobytes())

    t.callbacks = [After(n, look) for n in range(1, 7)]
    t.fit((x, y), epochs=2, batch_size=30, validation=(x, y))  # the validation has the averaged weights
    assert len(set(seen)) == 6
    look(t)


def test_everything_of_a_step_has_the_dtype_that_it_should(precision):
    network = net(precision=precision)
    x, y = blobs()
    step = Step(network, bn.Adam(), bn.SoftmaxCrossEntropy())
    step([Batch(x, y, np.ones(len(x)), np.arange(len(x)))])
    held = {str(a.dtype) for (_, name), a in step.inputs._buffers.items() if name == "x"}
    assert held == {precision}
    weights = {str(a.dtype) for (_, name), a in step.inputs._buffers.items() if name == "weights"}
    assert weights == {"float32"}
    flats = [flat.array for flat in step.state.slots.values() if flat is not None]
    wide = [network.parameters.array, step.state.gradients.array, step.state.value, step.state.checked.factor, *flats]
    assert {str(a.dtype) for a in wide} == {"float32"}
    assert str(network.statistics.array.dtype) == "float64"


def test_targets_stay_float32_where_activations_have_16_bits(precision):
    """1000.3 has no 16-bit neighbor within 0.04: rounded targets would show in the loss."""
    network = bn.Sequential(bn.Dense(2, 1), backend="numpy", precision=precision)
    network.parameters.array[...] = 0
    network.refresh()
    step = Step(network, bn.SGD(), bn.MeanSquaredError(), loss_scale=None)
    step([Batch(np.ones((4, 2), np.float32), np.full((4, 1), 100.3), None, np.arange(4))])
    np.testing.assert_allclose(step.report().loss, np.float32(100.3) ** 2, rtol=1e-6)


def test_a_training_stopped_in_an_epoch_ends_in_the_same_bits(precision, tmp_path):
    x, y = blobs()
    options = {"accumulate": 2, "average": bn.Average(0.9), "loss_scale": bn.LossScale(2.0**12, every=3)}

    def made(*callbacks: Any) -> bn.Trainer:
        return trainer(net(dropout=0.2, precision=precision), callbacks=list(callbacks), **options)

    whole = made()
    whole.fit((x, y), epochs=3, batch_size=8)
    assert whole.step.report().loss_scale > 2.0**12
    cut = made(After(8, lambda t: t.save(tmp_path / "cut.safetensors")))
    cut.fit((x, y), epochs=2, batch_size=8)
    resumed = made()
    resumed.resume(tmp_path / "cut.safetensors")
    assert network_bits(resumed.network) != network_bits(whole.network)
    resumed.fit((x, y), epochs=3, batch_size=8)
    assert outcome(resumed) == outcome(whole)
    assert resumed.network.copy16.array.tobytes() == whole.network.copy16.array.tobytes()


def test_a_training_resumes_only_in_its_own_precision(precision, tmp_path):
    x, y = blobs()
    first = trainer(net(precision=precision))
    first.fit((x, y), epochs=1)
    first.save(tmp_path / "a.safetensors")
    with pytest.raises(CheckpointError, match=f"other precision: {precision}; the trainer's network has highest"):
        trainer(net()).resume(tmp_path / "a.safetensors")
    assert network_bits(bn.load(tmp_path / "a.safetensors", backend="numpy")) == network_bits(first.network)


@pytest.mark.parametrize("scale", [2.0**-8, 1.0, 1024.0, 2.0**40])
def test_a_scale_of_a_power_of_two_changes_no_float32_bit(scale):
    """Nothing vanishes or overflows here, and multiplying by such a number is exact."""
    x, y = blobs()
    plain, scaled = trainer(clip_norm=0.5), trainer(clip_norm=0.5, loss_scale=scale)
    for t in (plain, scaled):
        t.fit((x, y), epochs=2, batch_size=30)
    assert network_bits(plain.network) == network_bits(scaled.network)
    assert plain.step.report().norm == scaled.step.report().norm
    assert (plain.step.report().loss_scale, scaled.step.report().loss_scale) == (None, scale)


def test_a_scale_keeps_small_float16_gradients():
    """Half of 2^-24, float16's least, rounds to 0, and the mean over 4096 rows divides 2^-14 below that."""
    x, y = np.ones((4096, 2), np.float32), np.full((4096, 1), 2.0**-15)
    gradients = []
    for scale in (None, 2.0**10):
        network = bn.Sequential(bn.Dense(2, 1), backend="numpy", precision="float16")
        network.parameters.array[...] = 0
        network.refresh()
        step = Step(network, bn.SGD(), bn.MeanSquaredError(), loss_scale=scale)
        step([Batch(x, y, None, np.arange(4096))])
        gradients.append(step.report().norm)
    exact = 2 * 2.0**-15 * np.sqrt(3)  # of both weights and of the bias
    assert gradients[0] == 0
    np.testing.assert_allclose(gradients[1], exact, rtol=1e-3)
