"""The tools on the witnesses: the same cause, statistics and folded answers as on NumPy."""

import numpy as np
import pytest

import bnengine as bn
from bnengine.explain.nets import Training, logits, perceptron
from bnengine.explain.setting import Setting
from bnengine.inspect import adapt, fold, gap, recalibrate, statistics_of
from bnengine.optimizers import SGD
from tests.support import require


@pytest.mark.parametrize("name", ["array_api_strict", "torch"])
def test_a_witness_finds_what_numpy_finds(name: str) -> None:
    require(name)
    draw = Setting().centred(0)
    state = None
    causes, answers, statistics = [], [], []
    for backend in ("numpy", name):
        network = perceptron((64, 16, 16, 10), decay=0.99, backend=bn.get_backend(backend), seed=0)
        if state is None:
            Training(network, SGD(), draw.x, draw.y, rate=0.1).run(25)
            state = network.state_dict()
        network.load_state_dict(state)
        causes.append(gap(network, (draw.x_valid, draw.y_valid), training=(draw.x, draw.y)).cause)
        done = adapt(network, draw.x_valid, prior=100)
        statistics.append(statistics_of(network))
        done.undo()
        assert {key: array.tobytes() for key, array in network.state_dict().items()} == {
            key: array.tobytes() for key, array in state.items()
        }
        recalibrate(network, (draw.x, draw.y))
        folded, certificate = fold(network)
        assert certificate.measured <= certificate.bound
        answers.append(logits(folded, draw.x_valid))
    assert causes == ["not converged"] * 2
    np.testing.assert_allclose(answers[1], answers[0], atol=1e-4)
    for key, found in statistics[1].items():
        np.testing.assert_allclose(found, statistics[0][key], rtol=1e-4, atol=1e-5)
