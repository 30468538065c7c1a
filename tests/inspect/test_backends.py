"""Every tool on other libraries and the simulated device: the findings, statistics and outputs of NumPy."""

from typing import Any, NamedTuple

import numpy as np
import pytest

import bnengine as bn
from bnengine.arrays.backend import Backend, get_backend
from bnengine.inspect import Finding, adapt, doctor, fold, gap, recalibrate, statistics_of
from bnengine.lab.explain.nets import Training, logits, perceptron
from bnengine.lab.explain.setting import Setting
from bnengine.layers import Activation, BatchNorm, Dense
from bnengine.network.sequential import Sequential
from bnengine.optim.optimizers import SGD
from bnengine.training import Activations
from tests.support import require

ROWS = 192
WHOLE = Setting().centered(0)
X, Y = WHOLE.x[:ROWS].astype(np.float32), WHOLE.y[:ROWS]
X_VALID, Y_VALID = WHOLE.x_valid[:ROWS].astype(np.float32), WHOLE.y_valid[:ROWS]


@pytest.fixture(params=["array_api_strict", "torch", "simulated"])
def other(request: pytest.FixtureRequest) -> Backend:
    """Another backend than NumPy's."""
    if request.param == "simulated":
        made: Backend = request.getfixturevalue("simulated").backend()
        return made
    require(request.param)
    return get_backend(request.param)


@pytest.fixture(scope="module")
def state() -> dict[str, np.ndarray]:
    """The state after 25 steps on NumPy: 0.99^25, three quarters, of the running statistics is still their start."""
    network = network_on("numpy")
    Training(network, SGD(), X, Y, rate=0.1).run(25)
    return network.state_dict()


def network_on(backend: str | Backend) -> Sequential:
    layers = Dense(64, 16, bias=True), BatchNorm(16, decay=0.99), Activation("relu")
    more = Dense(16, 16), BatchNorm(16, decay=0.99), Activation("relu"), Dense(16, 10)
    return Sequential(*layers, *more, backend=backend, seed=0)


class Found(NamedTuple):
    """The results of the tools for one network."""

    cause: str
    explained: dict[str, float]
    findings: list[Finding]
    adapted: dict[str, Any]
    exact: dict[str, Any]
    folded: Any


def found_on(backend: str | Backend, state: dict[str, np.ndarray]) -> Found:
    network = network_on(backend)
    network.load_state_dict(state)
    why = gap(network, (X_VALID, Y_VALID), training=(X, Y), steps=25)
    settings = {"steps": 25, "batch_size": 64, "rows": ROWS, "optimizer": "adam", "learning_rate": 0.01}
    findings = doctor(network, X + 10, None, settings)
    done = adapt(network, X_VALID, prior=100)
    adapted = statistics_of(network)
    done.undo()
    assert {k: array.tobytes() for k, array in network.state_dict().items()} == {
        k: array.tobytes() for k, array in state.items()
    }
    recalibrate(network, (X, Y))
    folded, certificate = fold(network, probe=X_VALID)
    assert certificate.folded == ("1", "4")
    assert certificate.measured <= certificate.bound
    return Found(why.cause, why.explained, findings, adapted, statistics_of(network), logits(folded, X_VALID))


def test_every_tool_finds_what_it_finds_on_numpy(other: Backend, state: dict[str, np.ndarray]) -> None:
    here, there = (found_on(backend, state) for backend in ("numpy", other))
    assert here.cause == there.cause == "not converged"
    assert there.explained == pytest.approx(here.explained, rel=1e-3)
    assert {finding.id for finding in here.findings} >= {"decay-slow", "cancelled-bias", "uncentred-inputs"}
    for a, b in zip(here.findings, there.findings, strict=True):
        assert (b.id, b.severity, b.layer) == (a.id, a.severity, a.layer)
        if a.id != "cancelled-bias":  # in units of rounding
            assert b.numbers == pytest.approx(a.numbers, rel=1e-3)
    for mine, theirs in ((here.adapted, there.adapted), (here.exact, there.exact)):
        assert mine.keys() == theirs.keys()
        for name, statistics in mine.items():
            np.testing.assert_allclose(theirs[name], statistics, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(there.folded, here.folded, atol=1e-4)


def test_recorded_activations_are_those_of_numpy(other: Backend) -> None:
    records = []
    for backend in ("numpy", other):
        network = perceptron((64, 8, 10), backend=get_backend(backend), seed=0)
        trainer = bn.Trainer(network, "sgd", learning_rate=0.1, watch=Activations(2), progress="quiet")
        trainer.fit((X[:96], Y[:96]), epochs=2, batch_size=32)
        records.append([record["activations"] for record in trainer.history])
    for here, there in zip(*records, strict=True):
        assert there["steps"] == here["steps"]
        assert list(there["layers"]) == list(here["layers"]) == ["0", "1", "2", "3"]
        for place, figures in here["layers"].items():
            for name, values in figures.items():
                assert there["layers"][place][name] == pytest.approx(values, rel=1e-3, abs=1e-4), (place, name)
