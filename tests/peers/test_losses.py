"""Losses against PyTorch's: values and gradients, within 20 u times the terms of each formula."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bnengine.losses import BinaryCrossEntropy, LossFunction, MeanSquaredError, SoftmaxCrossEntropy
from tests.peers.bounds import K, U, assert_within
from tests.peers.twin import array

pytestmark = pytest.mark.peers
DTYPES = ("float64", "float32")
few = settings(max_examples=25, deadline=None, derandomize=True)
leads = st.lists(st.integers(1, 6), min_size=1, max_size=2).map(tuple)
classes_ = st.integers(2, 12)
scales = st.sampled_from([0.1, 3.0, 300.0])
seeds = st.integers(0, 2**32 - 1)


def ours(loss: LossFunction, output: np.ndarray, y: np.ndarray, weights: np.ndarray | None) -> tuple[float, np.ndarray]:
    """(value, gradient of the output) of one batch as a training step asks for them."""
    dtype, outputs = output.dtype, output.shape[-1]
    target = loss.targets(y, outputs)
    constants = loss.constants(outputs)
    total = np.asarray([loss.total(target, weights, outputs)], dtype)
    weights = loss.weights(weights, target)
    target = target if target.dtype.kind == "i" else target.astype(dtype)
    weights, constants = (None if a is None else a.astype(dtype) for a in (weights, constants))
    value, gradient = loss(output, target, weights, constants, total)
    assert value.shape == (1,)
    assert value.dtype == gradient.dtype == dtype
    return float(value[0]), gradient


def wide(torch: Any, values: np.ndarray) -> Any:
    return torch.tensor(np.asarray(values, np.float64), requires_grad=True)


def compare(
    u: float, found: tuple[float, np.ndarray], loss: Any, leaf: Any, value: float, gradient: np.ndarray
) -> None:
    """Ours against PyTorch's scalar `loss` of `leaf`; the last two are sums of the absolute terms of each formula."""
    loss.backward()
    assert_within(np.asarray(found[0]), np.asarray(float(loss.detach())), np.asarray(K * u * value), "value")
    assert_within(found[1], array(leaf.grad), K * u * gradient, "gradient")


class Case:
    """Logits, targets and weights drawn for one shape."""

    def __init__(self, lead: tuple[int, ...], classes: int, scale: float, seed: int, dtype: str) -> None:
        rng = np.random.default_rng(seed)
        self.logits = (rng.standard_normal((*lead, classes)) * scale).astype(dtype)
        self.codes = rng.integers(0, classes, lead)
        # What the network's dtype holds is the target: the rounding of the input is nobody's error.
        self.probabilities = rng.dirichlet(np.ones(classes), lead).astype(dtype)
        self.class_weights = (rng.random(classes) + 0.1).astype(dtype)
        self.weights = (rng.random(lead[0]) + 0.1).astype(dtype)
        self.spread = 1 + np.abs(self.logits.astype(np.float64)).max(axis=-1)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("kind", ["integers", "probabilities"])
@given(lead=leads, classes=classes_, scale=scales, seed=seeds)
@few
def test_softmax_cross_entropy(
    torch: Any, kind: str, weighted: bool, smoothing: float, dtype: str,
    lead: tuple[int, ...], classes: int, scale: float, seed: int,
) -> None:  # fmt: skip
    """PyTorch's mean, too, is over the weights of the rows' classes for integers, over the rows for probabilities."""
    case = Case(lead, classes, scale, seed, dtype)
    chosen = tuple(float(c) for c in case.class_weights) if weighted else None
    y = case.codes if kind == "integers" else case.probabilities
    found = ours(SoftmaxCrossEntropy(smoothing, chosen), case.logits, y, None)

    leaf = wide(torch, case.logits)
    target = torch.tensor(y) if kind == "integers" else torch.tensor(y.astype(np.float64)).movedim(-1, 1)
    weight = None if chosen is None else torch.tensor(chosen, dtype=torch.float64)
    loss = torch.nn.functional.cross_entropy(leaf.movedim(-1, 1), target, weight=weight, label_smoothing=smoothing)
    largest = 1.0 if chosen is None else max(chosen)
    rows = case.codes.size
    total = float(np.sum(case.class_weights[case.codes])) if weighted and kind == "integers" else rows
    value = largest * case.spread.sum() / total
    compare(U[dtype], found, loss, leaf, value, largest * case.spread[..., None] / total + 0 * case.logits)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", ["integers", "probabilities"])
@pytest.mark.parametrize("class_weighted", [False, True])
@given(lead=leads, classes=classes_, seed=seeds)
@few
def test_sample_weights_weigh_the_rows_of_the_mean(
    torch: Any, class_weighted: bool, kind: str, dtype: str, lead: tuple[int, ...], classes: int, seed: int
) -> None:
    case = Case(lead, classes, 3.0, seed, dtype)
    chosen = tuple(float(c) for c in case.class_weights) if class_weighted else None
    y = case.codes if kind == "integers" else case.probabilities
    found = ours(SoftmaxCrossEntropy(0.2, chosen), case.logits, y, case.weights)

    v = np.ones(lead) * case.weights.astype(np.float64).reshape(-1, *[1] * (len(lead) - 1))
    leaf, wv = wide(torch, case.logits), torch.tensor(v)
    target = torch.tensor(y) if kind == "integers" else torch.tensor(y.astype(np.float64)).movedim(-1, 1)
    weight = None if chosen is None else torch.tensor(chosen, dtype=torch.float64)
    each = torch.nn.functional.cross_entropy(
        leaf.movedim(-1, 1), target, weight=weight, label_smoothing=0.2, reduction="none"
    )
    divisor = wv * weight[torch.tensor(case.codes)] if weight is not None and kind == "integers" else wv
    total = float(divisor.sum())
    largest = 1.0 if chosen is None else max(chosen)
    terms = largest * case.spread * v / total
    compare(U[dtype], found, (each * wv).sum() / total, leaf, terms.sum(), terms[..., None] + 0 * case.logits)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("kind", ["certain", "probabilities"])
@given(rows=st.integers(1, 9), outputs=st.integers(1, 5), scale=scales, seed=seeds)
@few
def test_binary_cross_entropy_with_logits(
    torch: Any, kind: str, weighted: bool, dtype: str, rows: int, outputs: int, scale: float, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    logits = (rng.standard_normal((rows, outputs)) * scale).astype(dtype)
    t = (rng.random(logits.shape) if kind == "probabilities" else rng.integers(0, 2, logits.shape)).astype(dtype)
    v = (rng.random(rows) + 0.1).astype(dtype) if weighted else np.ones(rows, dtype)
    found = ours(BinaryCrossEntropy(), logits, t, v if weighted else None)
    leaf, wv = wide(torch, logits), torch.tensor(v.astype(np.float64))[:, None]
    each = torch.nn.functional.binary_cross_entropy_with_logits(
        leaf, torch.tensor(t.astype(np.float64)), weight=wv, reduction="sum"
    )
    total = float(wv.sum()) * outputs
    share = (v[:, None] / total).astype(np.float64)
    value = ((1 + 2 * np.abs(logits)) * share).sum()
    compare(U[dtype], found, each / total, leaf, value, 2 * share + 0 * logits)
    if not weighted:
        mean = torch.nn.BCEWithLogitsLoss()(leaf.detach(), torch.tensor(t.astype(np.float64)))
        assert_within(np.asarray(found[0]), array(mean), np.asarray(K * U[dtype] * value), "PyTorch's own mean")


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("weighted", [False, True])
@given(rows=st.integers(1, 9), outputs=st.integers(1, 5), scale=scales, seed=seeds)
@few
def test_mean_squared_error(
    torch: Any, weighted: bool, dtype: str, rows: int, outputs: int, scale: float, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    p, t = ((rng.standard_normal((rows, outputs)) * scale).astype(dtype) for _ in range(2))
    v = (rng.random(rows) + 0.1).astype(dtype) if weighted else np.ones(rows, dtype)
    found = ours(MeanSquaredError(), p, t, v if weighted else None)
    leaf, wt, wv = wide(torch, p), torch.tensor(t.astype(np.float64)), torch.tensor(v.astype(np.float64))[:, None]
    total = float(wv.sum()) * outputs
    loss = ((leaf - wt) ** 2 * wv).sum() / total if weighted else torch.nn.functional.mse_loss(leaf, wt)
    size, share = np.abs(p.astype(np.float64)) + np.abs(t), v[:, None].astype(np.float64) / total
    compare(U[dtype], found, loss, leaf, (size**2 * share).sum(), 2 * size * share)
