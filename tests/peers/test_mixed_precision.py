"""Mixed precision compared with PyTorch's: the rule of its GradScaler, and how far its autocast is from float64."""

from typing import Any

import numpy as np
import pytest

from bnengine import ops
from bnengine.layers import Activation, BatchNorm, Dense
from bnengine.network.sequential import Sequential
from bnengine.ops.check_step import GOOD, SCALE
from tests.peers.twin import Twin, array

pytestmark = pytest.mark.peers


@pytest.mark.parametrize(("growth", "backoff", "every"), [(2.0, 0.5, 3), (4.0, 0.25, 2), (1.5, 0.75, 1)])
def test_the_scale_falls_and_grows_as_grad_scaler_has_it(torch, rng, growth, backoff, every):
    """For gradients that overflow though the loss is finite; PyTorch does not look at the loss."""
    peer = torch.amp.GradScaler(
        "cpu", init_scale=1024.0, growth_factor=growth, backoff_factor=backoff, growth_interval=every
    )
    weight = torch.nn.Parameter(torch.ones(3))
    optimizer = torch.optim.SGD([weight], lr=0.1)
    peer.scale(weight.sum())  # makes its state
    scaling = np.asarray([1024.0, 0, 0, 0], np.float32)
    loss, pending = np.ones(1, np.float32), np.zeros((1, 3, 0))
    for overflows in rng.random(60) < 0.25:
        gradients = np.asarray([1.0, np.inf if overflows else 2.0, 3.0], np.float32)
        weight.grad, before = torch.tensor(gradients * scaling[SCALE]), array(weight)
        peer.step(optimizer)
        peer.update()
        verdict = ops.check_step(
            loss, gradients * scaling[SCALE], pending, scaling, growth=growth, backoff=backoff, every=every
        )
        scaling = verdict.scaling
        assert bool(verdict.ok[0]) == bool(np.any(array(weight) != before)) == (not overflows)
        np.testing.assert_allclose(scaling[SCALE], peer.get_scale(), rtol=1e-6)
        assert scaling[GOOD] == peer._get_growth_tracker()


def network(precision: str) -> Sequential:
    hidden = [layer for _ in range(3) for layer in (Dense(48, 48), BatchNorm(48), Activation("relu"))]
    return Sequential(*hidden, Dense(48, 10), backend="numpy", precision=precision, seed=5)


SCALE_OF_LOSS = 1024.0  # in float16 the mean over 256 rows has gradients that would lose digits


def theirs(torch: Any, twin: Twin, x: np.ndarray, codes: np.ndarray, dtype: str | None) -> dict[str, np.ndarray]:
    """PyTorch's gradients by our names, under autocast to `dtype`, or None for as they are."""
    with torch.autocast("cpu", dtype=getattr(torch, dtype or "bfloat16"), enabled=dtype is not None):
        output = twin(twin.tensor(x), training=True)
    output = output if dtype is None else output.float()
    (torch.nn.functional.cross_entropy(output, torch.tensor(codes)) * SCALE_OF_LOSS).backward()
    return {name: np.float64(a) / SCALE_OF_LOSS for name, a in twin.gradients().items()}


def ours(network: Sequential, x: np.ndarray, codes: np.ndarray) -> dict[str, np.ndarray]:
    forward, grads = network.forward(x, training=True), network.gradients()
    total, scale = np.asarray([len(x)], np.float32), np.asarray([SCALE_OF_LOSS], np.float32)
    loss = ops.softmax_cross_entropy(forward.output, codes, divisor=total, scale=scale)
    forward.pullback(loss.dlogits, grads, dx=False)
    found = network.export(grads, network.statistics)
    return {name: np.float64(a) / SCALE_OF_LOSS for name, a in found.items() if ".running" not in name}


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_gradients_are_as_near_to_float64_as_under_autocast(torch, require, rng, dtype):
    """Both round activations, weights and gradients of activations to 16 bits; neither may be much further off."""
    if dtype == "bfloat16":
        require("ml_dtypes")
    x, codes = rng.standard_normal((256, 48)).astype(np.float32), rng.integers(0, 10, 256)
    net = network(dtype)
    exact = theirs(torch, Twin(net), x, codes, None)
    peer, mine = theirs(torch, Twin(net, dtype="float32"), x, codes, dtype), ours(net, x, codes)
    assert exact.keys() == peer.keys() == mine.keys()
    for name, truth in exact.items():
        of_peer, of_mine = (np.linalg.norm(g[name] - truth) / np.linalg.norm(truth) for g in (peer, mine))
        assert of_mine <= 2 * of_peer, name
        assert of_mine > 0, name
