"""Batch normalization at mean 1e6 and std 1 in float32: how far we, PyTorch and plain NumPy are from the truth."""

from typing import Any

import numpy as np
import pytest

from bnengine.layers import BatchNorm
from bnengine.network.sequential import Sequential
from tests.peers.bounds import U

pytestmark = pytest.mark.peers
ROWS, CHANNELS, EPS = 4096, 64, 1e-5


def plain(x: np.ndarray, gamma: np.ndarray, beta: np.ndarray) -> np.ndarray:
    """The formula as one writes it down, in two passes and in x's dtype."""
    mean, var = x.mean(axis=0), x.var(axis=0)
    return gamma * (x - mean) / np.sqrt(var + x.dtype.type(EPS)) + beta


def measure(mean: float = 1e6) -> dict[str, float]:
    """Largest errors of y against float64, for float32 input of std 1: "bnengine", "PyTorch" and "NumPy".

    "bound" is the largest share of 10 u |y| + 10 u |gamma| that ours takes.
    """
    import torch

    rng = np.random.default_rng(0)
    x = (mean + rng.standard_normal((ROWS, CHANNELS))).astype(np.float32)
    gamma, beta = (rng.standard_normal(CHANNELS).astype(np.float32) for _ in range(2))
    truth = plain(*(a.astype(np.float64) for a in (x, gamma, beta)))

    network = Sequential(BatchNorm(CHANNELS, eps=EPS), backend="numpy")
    network.named_parameters()["0.gamma"][...], network.named_parameters()["0.beta"][...] = gamma, beta
    ours = network.forward(x, training=True).output
    module = torch.nn.BatchNorm1d(CHANNELS, eps=EPS)
    with torch.no_grad():
        module.weight.copy_(torch.from_numpy(gamma))
        module.bias.copy_(torch.from_numpy(beta))
        theirs = module(torch.from_numpy(x)).numpy()

    outputs = {"bnengine": ours, "PyTorch": theirs, "NumPy": plain(x, gamma, beta)}
    assert {y.dtype for y in outputs.values()} == {np.dtype(np.float32)}
    errors = {name: np.abs(y - truth) for name, y in outputs.items()}
    bound = 10 * U["float32"] * (np.abs(truth) + np.abs(gamma))
    return {name: float(error.max()) for name, error in errors.items()} | {
        "bound": float((errors["bnengine"] / bound).max())
    }


def describe(mean: float, measured: dict[str, float]) -> str:
    """One line of the README's table."""
    figures = ", ".join(f"{name} {measured[name]:.2g}" for name in ("bnengine", "PyTorch", "NumPy"))
    return (
        f"mean {mean:g}, std 1, float32: largest error of y: {figures}; ours takes {measured['bound']:.2f} of its bound"
    )


@pytest.mark.usefixtures("torch")
def test_a_large_mean_costs_no_digits_here(capsys: Any) -> None:
    measured = measure(1e6)
    with capsys.disabled():
        print("\n" + describe(1e6, measured))
    assert measured["bound"] <= 1
    assert measured["PyTorch"] > 1e-3
    assert measured["NumPy"] > 1e-3


@pytest.mark.usefixtures("torch")
@pytest.mark.parametrize("mean", [0.0, 1e2, 1e4, -1e5])
def test_the_bound_holds_for_every_mean_up_to_that(mean: float) -> None:
    measured = measure(mean)
    print("\n" + describe(mean, measured))
    assert measured["bound"] <= 1


def test_float64_shows_that_the_truth_is_one(torch: Any) -> None:
    """The float64 formula that errors are taken against agrees with PyTorch's to 2^-53 |mean| / std, and some."""
    x = (1e6 + np.random.default_rng(0).standard_normal((ROWS, CHANNELS))).astype(np.float32).astype(np.float64)
    theirs = torch.nn.functional.batch_norm(torch.from_numpy(x), None, None, training=True, eps=EPS).numpy()
    assert np.abs(plain(x, np.ones(CHANNELS), np.zeros(CHANNELS)) - theirs).max() < 10 * U["float64"] * 1e6
