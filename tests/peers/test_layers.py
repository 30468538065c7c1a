"""Every layer against PyTorch's in float64: outputs, gradients of inputs and parameters, running statistics."""

from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from bnengine import layers as bn
from bnengine.contracts.activations import sensitivity_of
from bnengine.data import Batch
from bnengine.losses import MeanSquaredError
from bnengine.network.sequential import Sequential
from bnengine.ops import dropout
from bnengine.ops.activations import ACTIVATIONS
from bnengine.optim.optimizers import SGD
from bnengine.training.step import Step
from tests.peers import bounds
from tests.peers.bounds import U, assert_within
from tests.peers.twin import Twin, array

pytestmark = [pytest.mark.peers, pytest.mark.usefixtures("torch")]
DTYPES = ("float64", "float32")
shapes = st.lists(st.integers(1, 5), min_size=1, max_size=3).map(tuple)
widths = st.integers(1, 24)
seeds = st.integers(0, 2**32 - 1)
few = settings(max_examples=25, deadline=None, derandomize=True)


class Ran:
    """A network and its twin on the same input and the same gradient of the output."""

    def __init__(self, network: Sequential, x: np.ndarray, seed: int, *, training: bool, masks: Any = ()) -> None:
        self.twin = Twin(network, axes=x.ndim)
        self.twin.masks = [self.twin.tensor(mask) for mask in masks]
        forward = network.forward(x, training=training)
        self.y, self.pending = forward.output, forward.pending
        self.dy = np.random.default_rng(seed).standard_normal(self.y.shape).astype(network.dtype)
        grads = network.gradients()
        self.dx = forward.pullback(self.dy, grads)
        named = network.named_handles().items()
        self.gradients = {n: grads[h].copy() for n, h in named if h in grads.offsets}
        leaf = self.twin.tensor(x, leaf=True)
        output = self.twin(leaf, training=training)
        output.backward(self.twin.tensor(self.dy))
        self.y_twin, self.dx_twin = array(output), array(leaf.grad)
        self.gradients_twin = self.twin.gradients()

    def check(self, y: np.ndarray, dx: np.ndarray, **gradients: np.ndarray) -> None:
        """All that was computed against the twin's, each within its bound."""
        assert_within(self.y, self.y_twin, y, "output")
        assert_within(self.dx, self.dx_twin, dx, "gradient of the input")
        assert self.gradients.keys() == self.gradients_twin.keys() == gradients.keys()
        for name, bound in gradients.items():
            assert_within(self.gradients[name], self.gradients_twin[name], bound, f"gradient of {name}")


def normal(seed: int, shape: tuple[int, ...], dtype: str, scale: float = 1.0, shift: float = 0.0) -> np.ndarray:
    return (shift + scale * np.random.default_rng(seed).standard_normal(shape)).astype(dtype)


def scatter(network: Sequential, seed: int) -> None:
    """Parameters that are not the round numbers a layer starts with."""
    rng = np.random.default_rng(seed)
    for view in network.named_parameters().values():
        view[...] = rng.standard_normal(view.shape)


def off_the_kink(z: np.ndarray, dtype: str, kind: str) -> bool:
    """Where a derivative jumps, no two computations need agree on it within rounding."""
    return all(bool(np.all(np.abs(z - kink) > 1e4 * U[dtype])) for kink in sensitivity_of(kind, 0.2).kinks)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", ACTIVATIONS)
@given(lead=shapes, inputs=widths, outputs=widths, seed=seeds)
@few
def test_dense_is_linear(kind: str, dtype: str, lead: tuple[int, ...], inputs: int, outputs: int, seed: int) -> None:
    network = Sequential(bn.Dense(inputs, outputs), bn.Activation(kind, slope=0.2), dtype=dtype)
    scatter(network, seed)
    x = normal(seed + 1, (*lead, inputs), dtype)
    W, b = (np.asarray(v, np.float64) for v in network.named_parameters().values())
    z = x.astype(np.float64) @ W + b
    assume(off_the_kink(z, dtype, kind))
    ran = Ran(network, x, seed, training=True)
    bound = bounds.affine(U[dtype], x, W, b, ran.dy, z)
    ran.check(bound.y, bound.dx, **{"0.W": bound.dW, "0.b": bound.db})


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", ACTIVATIONS)
def test_every_activation_on_its_own(kind: str, dtype: str) -> None:
    layer = bn.Activation(kind, slope=0.2)
    network = Sequential(bn.Dropout(0.0), layer, dtype=dtype)  # nothing that the activation could become part of
    x = normal(3, (40, 30), dtype, scale=4)
    x[0] = 0
    x[1] *= 20
    if 0 in sensitivity_of(kind, 0.2).kinks:
        x[0] = 1e-30
    ran = Ran(network, x, 4, training=False)
    y, dy = bounds.activation_slack(U[dtype], x, np.zeros_like(x), ran.dy)
    ran.check(y, dy)


@pytest.mark.parametrize("bias", [True, False])
def test_a_dense_layer_with_or_without_a_bias(bias: bool) -> None:
    network = Sequential(bn.Dense(5, 3, bias=bias), dtype="float64")
    scatter(network, 0)
    x = normal(1, (7, 5), "float64")
    W = network.named_parameters()["0.W"]
    b = network.named_parameters()["0.b"] if bias else np.zeros(3)
    ran = Ran(network, x, 2, training=True)
    bound = bounds.affine(U["float64"], x, W, b, ran.dy, x @ W + b)
    ran.check(bound.y, bound.dx, **({"0.W": bound.dW, "0.b": bound.db} if bias else {"0.W": bound.dW}))


def normalized_bound(network: Sequential, x: np.ndarray, dy: np.ndarray, *, batch: bool) -> bounds.Normalized:
    layer = network.layers[0]
    assert isinstance(layer, bn.BatchNorm)
    wide = x.astype(np.float64)
    rows = tuple(range(x.ndim - 1))
    mean, var = (wide.mean(axis=rows), wide.var(axis=rows)) if batch else network.named_statistics()["0.statistics"][1:]
    gamma, beta = (d if h is None else h.value for h, d in ((layer.gamma, np.ones(1)), (layer.beta, np.zeros(1))))
    wide_affine = (np.asarray(a, np.float64) for a in (gamma, beta))
    return bounds.normalized(U[network.dtype], wide, mean, var, *wide_affine, dy, eps=layer.eps, batch=batch)


def affine_bounds(network: Sequential, bound: bounds.Normalized) -> dict[str, np.ndarray]:
    named = {"0.gamma": bound.dgamma, "0.beta": bound.dbeta}
    return {name: named[name] for name in network.named_parameters()}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", ACTIVATIONS)
@given(lead=shapes, channels=widths, gamma=st.booleans(), beta=st.booleans(), seed=seeds)
@few
def test_batch_norm_in_training(
    kind: str, dtype: str, lead: tuple[int, ...], channels: int, gamma: bool, beta: bool, seed: int
) -> None:
    assume(np.prod(lead) > 1)
    layer = bn.BatchNorm(channels, gamma=gamma, beta=beta)
    network = Sequential(layer, bn.Activation(kind, slope=0.2), dtype=dtype)
    scatter(network, seed)
    x = normal(seed + 1, (*lead, channels), dtype, scale=2, shift=10)
    wide, rows = x.astype(np.float64), tuple(range(len(lead)))
    own_gamma, own_beta = (d if h is None else h.value for h, d in ((layer.gamma, 1.0), (layer.beta, 0.0)))
    z = (wide - wide.mean(axis=rows)) / np.sqrt(wide.var(axis=rows) + layer.eps) * own_gamma + own_beta
    assume(off_the_kink(z, dtype, kind))
    ran = Ran(network, x, seed, training=True)
    bound = normalized_bound(network, x, ran.dy, batch=True)
    ran.check(bound.y, bound.dx, **affine_bounds(network, bound))
    count, mean, var = ran.pending[layer.statistics]
    m = x.size // channels
    assert np.all(count == m)
    # One training pass of PyTorch moved (0, 1) a tenth of the way to the batch's mean and unbiased variance.
    after = ran.twin.values()
    assert_within(0.1 * mean, after["0.running_mean"], bound.mean, "mean")
    assert_within(
        0.9 + 0.1 * var * m / (m - 1), after["0.running_var"], bound.var * m / (m - 1) + 20 * bounds.DOUBLE, "var"
    )


@pytest.mark.parametrize("dtype", DTYPES)
@given(lead=shapes, channels=widths, gamma=st.booleans(), beta=st.booleans(), seed=seeds)
@few
def test_batch_norm_in_evaluation(
    dtype: str, lead: tuple[int, ...], channels: int, gamma: bool, beta: bool, seed: int
) -> None:
    network = Sequential(bn.BatchNorm(channels, gamma=gamma, beta=beta), dtype=dtype)
    scatter(network, seed)
    statistics = network.named_statistics()["0.statistics"]
    statistics[...] = np.abs(normal(seed + 2, statistics.shape, "float64")) + 0.1
    x = normal(seed + 1, (*lead, channels), dtype, scale=2)
    ran = Ran(network, x, seed, training=False)
    bound = normalized_bound(network, x, ran.dy, batch=False)
    ran.check(bound.y, bound.dx, **affine_bounds(network, bound))
    assert np.array_equal(ran.twin.values()["0.running_mean"], statistics[1]), "evaluation changes nothing"


@pytest.mark.parametrize("dtype", DTYPES)
def test_channels_last_images_match_batch_norm_2d(torch: Any, dtype: str) -> None:
    network = Sequential(bn.BatchNorm(6), dtype=dtype)
    scatter(network, 0)
    x = normal(1, (4, 5, 7, 6), dtype, scale=3, shift=-2)
    ran = Ran(network, x, 2, training=True)
    bound = normalized_bound(network, x, ran.dy, batch=True)
    ran.check(bound.y, bound.dx, **affine_bounds(network, bound))
    module = torch.nn.BatchNorm2d(6, dtype=torch.float64)
    with torch.no_grad():
        module.weight.copy_(torch.tensor(network.named_parameters()["0.gamma"], dtype=torch.float64))
        module.bias.copy_(torch.tensor(network.named_parameters()["0.beta"], dtype=torch.float64))
    by_hand = module(torch.tensor(x.astype(np.float64).transpose(0, 3, 1, 2)))
    assert_within(ran.y, array(by_hand).transpose(0, 2, 3, 1), bound.y, "NHWC against NCHW")


def statistics_step(layer: bn.BatchNorm, dtype: str) -> Step:
    """A training step that changes running statistics and nothing else."""
    return Step(Sequential(layer, dtype=dtype), SGD(), MeanSquaredError())


def as_batch(x: np.ndarray) -> Batch:
    return Batch(x, np.zeros_like(x), None, np.arange(len(x)))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(8, 5), (3, 4, 5), (3, 2, 4, 5)])
def test_running_statistics_after_several_steps(torch: Any, shape: tuple[int, ...], dtype: str) -> None:
    step = statistics_step(bn.BatchNorm.from_convention("torch", shape[-1], momentum=0.1), dtype)
    cls = torch.nn.BatchNorm2d if len(shape) == 4 else torch.nn.BatchNorm1d
    module = cls(shape[-1], momentum=0.1, dtype=torch.float64)
    m, mean_bound, var_bound = np.prod(shape[:-1]), 0.0, 0.0
    for i in range(20):
        x = normal(i, shape, dtype, scale=1 + i / 5, shift=i)
        step([as_batch(x)])
        module(torch.tensor(x.astype(np.float64)).movedim(-1, 1))
        _, mean, var = step.network.named_statistics()["0.statistics"]
        bound = normalized_bound(step.network, x, np.zeros_like(x), batch=True)
        mean_bound, var_bound = (max(a, b.max()) for a, b in ((mean_bound, bound.mean), (var_bound, bound.var)))
        assert_within(mean, array(module.running_mean), mean_bound, "running mean")
        assert_within(var, array(module.running_var), 20 * bounds.DOUBLE * var + var_bound * m / (m - 1), "running var")
    assert step.report().steps == 20


def test_an_exact_merge_and_torch_s_cumulative_average(torch: Any) -> None:
    """With batches of one size the means agree. The variances differ, and by what: PyTorch averages the batches' own
    unbiased variances s_i^2, which know nothing of the means' spread; all rows at once have the biased variance
    mean(s_i^2) (m - 1)/m + var(mean_i)."""
    step = statistics_step(bn.BatchNorm.from_convention("torch", 4, momentum=None), "float64")
    module = torch.nn.BatchNorm1d(4, momentum=None, dtype=torch.float64)
    batches = [normal(i, (6, 4), "float64", scale=2, shift=i) for i in range(8)]
    for x in batches:
        step([as_batch(x)])
        module(torch.tensor(x))
    count, mean, var = step.network.named_statistics()["0.statistics"]
    rows, means = np.concatenate(batches), np.stack([x.mean(axis=0) for x in batches])
    slack = 20 * bounds.DOUBLE * (np.abs(rows).max() + 1) ** 2 * len(batches)
    assert np.all(count == 48)
    assert_within(mean, array(module.running_mean), slack, "mean")
    assert_within(
        var, array(module.running_var) * 5 / 6 + means.var(axis=0), slack, "variance, the means' spread added"
    )
    assert_within(var, rows.var(axis=0), slack, "variance of all rows")
    assert np.all(array(module.running_var) < 0.6 * var), "PyTorch's leaves the spread of the means out"


@pytest.mark.parametrize("dtype", DTYPES)
def test_dropout_with_our_mask(dtype: str) -> None:
    network = Sequential(bn.Dropout(0.3), dtype=dtype, seed=5)
    x = normal(0, (50, 20), dtype)
    keep = dropout(np.ones_like(x), np.zeros(1, np.int64), np.arange(50), seed=5, layer=0, rate=0.3).keep
    assert 0.6 < keep.mean() < 0.8
    ran = Ran(network, x, 1, training=True, masks=[keep])
    u = bounds.K * U[dtype]
    ran.check(u * np.abs(x) / 0.7, u * np.abs(ran.dy) / 0.7)
    assert np.array_equal(np.asarray(ran.y) != 0, keep)
    network = Sequential(bn.Dropout(0.3), dtype=dtype, seed=5)
    ran = Ran(network, x, 1, training=False)
    ran.check(np.zeros_like(x), np.zeros_like(x))


def composed(dtype: str) -> dict[str, Sequential]:
    """Networks whose layers fuse with their neighbors in every way."""
    twice = bn.Dense(6, 6)
    layers: dict[str, list[bn.Layer]] = {
        "dense, norm, relu": [bn.Dense(6, 9), bn.BatchNorm(9), bn.Activation("relu"), bn.Dense(9, 4)],
        "dense, relu, norm": [bn.Dense(6, 9), bn.Activation("relu"), bn.BatchNorm(9), bn.Dense(9, 4)],
        "bias kept": [bn.Dense(6, 9, bias=True), bn.Activation("tanh"), bn.BatchNorm(9, gamma=False), bn.Dense(9, 4)],
        "residual, sum in the norm": [
            bn.Dense(6, 8),
            bn.Residual(bn.Dense(8, 5), bn.BatchNorm(5), bn.Activation("gelu"), bn.Dense(5, 8), bn.BatchNorm(8)),
            bn.Activation("relu"),
            bn.Dense(8, 3),
        ],
        "residual, sum apart": [
            bn.Residual(bn.BatchNorm(6), bn.Dense(6, 6), bn.Activation("tanh")),
            bn.Activation("sigmoid"),
        ],
        "residual of a norm alone": [bn.Residual(bn.BatchNorm(6)), bn.Dense(6, 6), bn.Residual(bn.Activation("gelu"))],
        "nested": [
            bn.Residual(bn.Residual(bn.Dense(6, 6), bn.BatchNorm(6)), bn.Activation("leaky_relu"), bn.BatchNorm(6)),
            bn.Activation("gelu"),
        ],
        "one layer twice": [twice, bn.Activation("tanh"), twice, bn.Residual(twice)],
    }
    return {name: Sequential(*given, dtype=dtype) for name, given in layers.items()}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("name", list(composed("float64")))
def test_whole_networks(name: str, training: bool, dtype: str) -> None:
    """A rounding acts as a relative change of a value, or of each term of a sum, by u; what such changes do to each
    result is measured on the twin, in float64, with changes of 1e-6."""
    network = composed(dtype)[name]
    rng = np.random.default_rng(7)
    for view in network.named_parameters().values():
        view[...] = view + 0.3 * rng.standard_normal(view.shape)
    for view in network.named_statistics().values():
        view[...] = np.abs(rng.standard_normal(view.shape)) + 0.5
    x = normal(8, (12, 6), dtype)
    ran = Ran(network, x, 9, training=training)
    condition = sensitivity(ran.twin, network, x, ran.dy, training)
    pairs = {"output": (ran.y, ran.y_twin), "input": (ran.dx, ran.dx_twin)}
    pairs |= {n: (ran.gradients[n], ran.gradients_twin[n]) for n in network.named_parameters()}
    assert ran.gradients.keys() == ran.gradients_twin.keys()
    for what, (ours, theirs) in pairs.items():
        allowed = 10 * U[dtype] * (condition[what] + np.abs(theirs).max())
        assert allowed < 1e6 * U[dtype] * max(1, np.abs(theirs).max()), f"{what}: the example is ill conditioned"
        assert_within(ours, theirs, allowed, what)


def sensitivity(twin: Twin, network: Sequential, x: np.ndarray, dy: np.ndarray, training: bool) -> dict[str, float]:
    """The largest change of each result, per unit of relative change of inputs, parameters and outputs of layers."""
    results = []
    rng, state, delta = np.random.default_rng(0), network.state_dict(), 1e-6

    def shaken(values: Any) -> Any:
        return values * (1 + delta * twin.tensor(rng.uniform(-1, 1, tuple(values.shape))))

    plain = twin._one
    for draw in range(9):
        twin.load(state)
        twin._one = plain  # type: ignore[method-assign]
        leaf = twin.tensor(x, leaf=True)
        start = leaf
        if draw:
            with twin.torch.no_grad():
                for name, tensor in twin.tensors.items():
                    if "running" not in name:
                        tensor.copy_(shaken(tensor))
            start = shaken(leaf)
            twin._one = lambda layer, value, train: shaken(plain(layer, value, train))  # type: ignore[method-assign]
        for tensor in twin.tensors.values():
            tensor.grad = None
        output = twin(start, training=training)
        output.backward(shaken(twin.tensor(dy)) if draw else twin.tensor(dy))
        results.append({"output": array(output), "input": array(leaf.grad), **twin.gradients()})
    twin._one = plain  # type: ignore[method-assign]
    first, *others = results
    return {n: max(np.abs(o[n] - v).max() for o in others) / delta for n, v in first.items()}


def test_a_bias_before_a_norm_only_adds_its_rounding(torch: Any) -> None:
    ours = Sequential(bn.Dense(6, 5), bn.BatchNorm(5), dtype="float64")
    assert ours.cancelled == ["0.b"]
    linear, norm = torch.nn.Linear(6, 5, dtype=torch.float64), torch.nn.BatchNorm1d(5, dtype=torch.float64)
    x = normal(0, (20, 6), "float64")
    with torch.no_grad():
        linear.weight.copy_(torch.tensor(ours.named_parameters()["0.W"].T.copy()))
        linear.bias.copy_(torch.tensor(normal(1, (5,), "float64")))
    output = norm(linear(torch.tensor(x)))
    output.backward(torch.tensor(normal(2, (20, 5), "float64")))
    assert_within(ours.forward(x, training=True).output, array(output), 1e-13 * np.ones(5), "output")
    assert np.abs(array(linear.bias.grad)).max() < 1e-13, "its gradient is round-off"
    assert np.abs(array(linear.weight.grad)).max() > 1e-2
