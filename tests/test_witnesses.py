"""One body of code on every library: fifty steps from one seed end in the same network."""

from functools import cache

import numpy as np
import pytest

from bnengine.arrays.backend import get_backend
from bnengine.data import ArraySource, Preprocessing, groups, load_digits, order, split
from bnengine.layers import Activation, BatchNorm, Dense, Dropout, Residual
from bnengine.losses import SoftmaxCrossEntropy
from bnengine.network.sequential import Sequential
from bnengine.optim.optimizers import Adam
from bnengine.training.state import Average
from bnengine.training.step import Step

STEPS, BATCH, MICRO = 50, 48, 32
WITNESSES = ["array_api_strict", "torch"]


def source(dtype):
    digits = load_digits()
    train, valid = split(digits.y, fraction=0.2, seed=0, stratify=True)
    preprocessing = Preprocessing.fit(digits, train, valid=valid)
    return [
        ArraySource(digits.x, digits.y, preprocessing=preprocessing, indices=rows, dtype=dtype)
        for rows in (train, valid)
    ]


def run(name, dtype, steps):
    """The state after training on `name`: network and step, as NumPy arrays, and the step itself."""
    network = Sequential(
        Dense(64, 32), BatchNorm(32), Activation("relu"), Dropout(0.2),
        Residual(Dense(32, 32), BatchNorm(32, decay=None), Activation("gelu"), Dense(32, 32), BatchNorm(32)),
        Activation("leaky_relu"), Dense(32, 10),
        backend=get_backend(name), dtype=dtype, seed=3,
    )  # fmt: skip
    step = Step(network, Adam(), SoftmaxCrossEntropy(label_smoothing=0.1), clip_norm=1.0, average=Average(0.95))
    step.schedule([0.01 * (1 + np.cos(np.pi * i / steps)) / 2 for i in range(steps)])
    train, _ = source(dtype)
    done = 0
    for epoch in range(steps):
        rows = order(train.rows, seed=3, epoch=epoch)
        for part in groups(train.rows, BATCH):
            if done < steps:
                step([train.take(rows[part][:MICRO]), train.take(rows[part][MICRO:])])
                done += 1
    return {**network.state_dict(), **step.state_dict()}, step


@cache
def briefly(name, dtype):
    return run(name, dtype, 6)


@pytest.fixture
def installed(name, require):
    """The library called `name`, on one thread: these arrays are so small that several would only wait."""
    library = require(name)
    if name != "torch":
        yield library
        return
    threads = library.get_num_threads()
    library.set_num_threads(1)
    yield library
    library.set_num_threads(threads)


@pytest.fixture(scope="module")
def on_numpy():
    return run("numpy", "float64", STEPS)


def test_on_numpy_the_steps_train(on_numpy):
    _, step = on_numpy
    report = step.report()
    assert (report.ok, report.steps, report.skipped) == (True, STEPS, 0)
    _, valid = source("float64")
    given = valid.take(np.arange(valid.rows))
    accuracy = np.mean(np.argmax(step.network.predict(given.x), axis=-1) == given.y)
    assert accuracy > 0.9


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize("name", WITNESSES)
def test_fifty_steps_in_float64_end_in_the_same_parameters(on_numpy, name):
    expected, _ = on_numpy
    state, step = run(name, "float64", STEPS)
    assert step.report().steps == STEPS
    assert state.keys() == expected.keys()
    for key, array in expected.items():
        difference = np.linalg.norm(state[key] - array)
        assert difference <= 1e-10 * np.linalg.norm(array), key


def test_two_runs_on_numpy_have_the_same_bits(on_numpy):
    expected, _ = on_numpy
    state, _ = run("numpy", "float64", STEPS)
    assert {key: array.tobytes() for key, array in state.items()} == {key: a.tobytes() for key, a in expected.items()}


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize("name", WITNESSES)
def test_two_runs_on_a_witness_have_the_same_bits(name):
    first, second = briefly(name, "float64")[0], run(name, "float64", 6)[0]
    assert {key: array.tobytes() for key, array in first.items()} == {key: a.tobytes() for key, a in second.items()}


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize("name", ["numpy", *WITNESSES])
def test_in_float32_every_library_trains_and_stays_near_float64(name):
    state, step = briefly(name, "float32")
    assert (step.report().ok, step.report().steps) == (True, 6)
    assert state["0.W"].dtype == np.float32
    expected, _ = briefly("numpy", "float64")
    for key in ("0.W", "4.0.W", "6.W", "1.running_mean", "1.running_var"):
        assert np.linalg.norm(state[key] - expected[key]) <= 1e-3 * np.linalg.norm(expected[key]), key
