"""A bias before batch norm: the derivation's equations on real activations, its gradient, and its optimizers.

With z = a W + b and mu = mean(a) W + b, z - mu = (a - mean(a)) W is free of b, and so is everything after it.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from ... import ops
from ..._typing import Array
from ...arrays.backend import Backend
from ...optim.optimizers import SGD, Adam, Optimizer, RMSprop
from .claim import Claim, Outcome, Part
from .drawing import BLUE, GREEN, ORANGE, PURPLE, named_curve, panels
from .nets import Training, logits, look, perceptron
from .setting import Setting

UNIT = {"float32": 2.0**-24, "float64": 2.0**-53}
BIASES = (1.0, 1e2, 1e4, 1e6)
ONE_PASS = 137.0
STEPS = 300
OPTIMIZERS: dict[str, tuple[Optimizer, float]] = {
    "SGD": (SGD(), 0.1), "momentum": (SGD(momentum=0.9), 0.1), "RMSprop": (RMSprop(), 0.01), "Adam": (Adam(), 0.01),
}  # fmt: skip


def experiment(setting: Setting, seed: int) -> Outcome:
    """The figures of one seed."""
    figures: dict[str, float] = {}
    for dtype in ("float32", "float64"):
        changes = [_change(setting, seed, dtype, b) for b in BIASES]
        figures[f"output_{dtype}"] = max(units for units, _ in changes)
        figures[f"equations_{dtype}"] = max(_equations(setting, seed, dtype, b) for b in (0.0, *BIASES))
        figures[f"gradient_{dtype}"] = _gradient(setting, seed, dtype)
        figures[f"largest_{dtype}"] = max(change for _, change in changes)
        figures[f"one_pass_{dtype}"] = _one_pass(setting, seed, dtype)
    figures["frozen"], figures["absorbed"] = _frozen(setting, seed)
    series = {}
    for dtype in ("float32", "float64"):
        for name in OPTIMIZERS:
            drift = _drift(setting, seed, name, dtype)
            figures[f"drift_{name}_{dtype}"] = float(drift[-1])
            series[f"{name} {dtype}"] = drift
    figures["exact"] = max(figures["drift_SGD_float32"], figures["drift_momentum_float32"])
    figures["adaptive"] = min(figures["drift_RMSprop_float32"], figures["drift_Adam_float32"])
    figures["drift_float64"] = max(figures[f"drift_{name}_float64"] for name in OPTIMIZERS)
    return Outcome(figures, series)


def _change(setting: Setting, seed: int, dtype: str, b: float) -> tuple[float, float]:
    """Equations (1) to (3) with and without b on the first batch: the largest change, in units of rounding and as is.

    A value of size |b| is rounded by u |b|, over its standard deviation: the unit is u max(1, |b| / std).
    """
    backend, draw = setting.backend, setting.centered(seed)
    network = perceptron((setting.features, 64, setting.classes), dtype=dtype, backend=backend, seed=seed)
    z = backend.asarray(look(network, draw.x[:64], training=True)[0][0].y, dtype)
    plain, shifted = normalized(backend, z), normalized(backend, z + backend.asarray(np.full(z.shape[-1], b), dtype))
    std = np.sqrt(np.asarray(backend.to_numpy(ops.moments(z).batch), np.float64)[2])
    change = np.abs(shifted - plain)
    return float(np.max(change / (UNIT[dtype] * np.maximum(1, b / std)))), float(change.max())


def _one_pass(setting: Setting, seed: int, dtype: str) -> float:
    """`_change` for b = 137 and the variance mean(z^2) - mean(z)^2, which rounds squares of |b|, not differences."""
    backend, draw = setting.backend, setting.centered(seed)
    network = perceptron((setting.features, 64, setting.classes), dtype=dtype, backend=backend, seed=seed)
    z = np.asarray(look(network, draw.x[:64], training=True)[0][0].y, dtype)
    shifted, count = z + np.asarray(ONE_PASS, dtype), np.asarray(len(z), dtype)
    mean, squares = (sum(rows) / count for rows in (shifted, shifted * shifted))
    one_pass = (shifted - mean) / np.sqrt(np.maximum(squares - mean * mean, 0) + np.asarray(1e-5, dtype))
    unit = UNIT[dtype] * np.maximum(1, ONE_PASS / z.std(axis=0, dtype=np.float64))
    return float(np.max(np.abs(one_pass - normalized(backend, backend.asarray(z, dtype))) / unit))


def _equations(setting: Setting, seed: int, dtype: str, b: float) -> float:
    """The largest error of mu = mean(a) W + b, z - mu = (a - mean(a)) W and sigma^2 = mean ((a - mean(a)) W)^2.

    On the first batch: the left sides are the engine's z and moments, the right sides float64. The unit is the rounding
    error of z = a W + b: u (|a| |W| + |b|), the largest of the batch, and 2 |z - mu| times that for sigma^2.
    """
    backend, draw = setting.backend, setting.centered(seed)
    network = perceptron((setting.features, 64, setting.classes), dtype=dtype, backend=backend, seed=seed)
    a = backend.asarray(draw.x[:64], dtype)
    W = network.named_parameters()["0.W"]
    z = ops.affine(a, W, backend.asarray(np.full(64, b), dtype))
    _, mu, var = np.asarray(backend.to_numpy(ops.moments(z).batch), np.float64)
    a64, W64, z64 = (np.asarray(backend.to_numpy(array), np.float64) for array in (a, W, z))
    mean, centered = a64.mean(axis=0) @ W64 + b, (a64 - a64.mean(axis=0)) @ W64
    unit = UNIT[dtype] * (np.abs(a64) @ np.abs(W64) + abs(b)).max(axis=0)
    spread = np.abs(centered).max(axis=0)
    return float(max(
        np.max(np.abs(mu - mean) / unit),
        np.max(np.abs(z64 - mu - centered) / unit),
        np.max(np.abs(var - np.mean(centered**2, axis=0)) / (2 * spread * unit + unit**2)),
    ))  # fmt: skip


def normalized(backend: Backend, z: Array) -> Array:
    """z_norm of a batch by the engine's op, float64 on the host: equations (1) to (3) with gamma 1 and beta 0."""
    ones = backend.asarray(np.ones(z.shape[-1]), z.dtype)
    moments = ops.moments(z).batch
    return np.asarray(backend.to_numpy(ops.normalize(z, moments, ones, ones - ones, eps=1e-5)), np.float64)


def _gradient(setting: Setting, seed: int, dtype: str) -> float:
    """|dL/db| over u sum |dz|: the gradient of the bias is the sum of dz over the batch, 0 except for rounding."""
    draw, widths = setting.centered(seed), (setting.features, 64, setting.classes)
    network = perceptron(widths, bias=True, dtype=dtype, backend=setting.backend, seed=seed)
    seen, grads = look(network, draw.x[:64], draw.y[:64], training=True)
    dz = np.asarray(seen[0].dy)
    return float(np.max(np.abs(grads["0.b"]) / (UNIT[dtype] * np.abs(dz).sum(axis=0))))


def _frozen(setting: Setting, seed: int) -> tuple[float, float]:
    """The change of outputs with running statistics after b = 1 is added in each hidden layer, over the largest logit.

    Second: the same after the running means follow b.
    """
    draw = setting.centered(seed)
    widths = (setting.features, 64, 64, setting.classes)
    network = perceptron(widths, bias=True, backend=setting.backend, seed=seed)
    Training(network, SGD(), draw.x, draw.y, rate=0.1, seed=seed).run(setting.steps(100))
    before = logits(network, draw.x_valid)
    for name in ("0.b", "3.b"):
        network.named_parameters()[name][...] += 1
    added = logits(network, draw.x_valid)
    for statistics in network.named_statistics().values():
        statistics[1, ...] += 1
    absorbed = logits(network, draw.x_valid)
    largest = float(np.abs(before).max())
    return float(np.abs(added - before).max()) / largest, float(np.abs(absorbed - before).max()) / largest


def _drift(setting: Setting, seed: int, name: str, dtype: str) -> Array:
    """The largest |b| every ten steps, for biases that begin at 0."""
    optimizer, rate = OPTIMIZERS[name]
    draw, widths = setting.centered(seed), (setting.features, 64, 64, 64, setting.classes)
    network = perceptron(widths, bias=True, dtype=dtype, backend=setting.backend, seed=seed)
    training = Training(network, optimizer, draw.x, draw.y, rate=rate, seed=seed)
    biases = [network.named_parameters()[f"{3 * layer}.b"] for layer in range(3)]
    read = network.backend.to_numpy
    pauses = training.every(10, 10 * setting.steps(STEPS // 10))
    return np.asarray([max(float(np.abs(read(b)).max()) for b in biases) for _ in pauses])


def draw(figure: Any, outcomes: Sequence[Outcome]) -> None:
    """The largest bias of each optimizer by step, in float32 and float64; the mean over the seeds."""
    steps = 10 * np.arange(len(outcomes[0].series["SGD float32"]))
    for panel, dtype in zip(panels(figure, [f"Largest |b|, {dtype}" for dtype in UNIT]), UNIT, strict=True):
        for name, color in zip(OPTIMIZERS, (BLUE, GREEN, PURPLE, ORANGE), strict=True):
            mean = np.mean([outcome.series[f"{name} {dtype}"] for outcome in outcomes], axis=0)
            named_curve(panel, steps[1:], np.maximum(mean[1:], 1e-18), name, color)
        panel.set_yscale("log")
        panel.set_xlabel("step", fontsize=9)


PARTS = (
    Part("the equations of the derivation hold for any b, to the rounding of z, in float32",
         "an equation of the derivation is off by more than rounding in float32", "equations_float32", "<=", 40,
         essential=True),
    Part("the same in float64", "an equation of the derivation is off by more than rounding in float64",
         "equations_float64", "<=", 40, essential=True),
    Part("the normalized values are the same with any b, to the rounding of z + b, in float32",
         "b changes the normalized values by more than rounding in float32",
         "output_float32", "<=", 40, essential=True),
    Part("the same in float64", "b changes the normalized values by more than rounding in float64",
         "output_float64", "<=", 40, essential=True),
    Part("the gradient of the bias is only rounding, in float32", "the loss depends on b in float32",
         "gradient_float32", "<=", 25, essential=True),
    Part("the same in float64", "the loss depends on b in float64", "gradient_float64", "<=", 25, essential=True),
    Part("a running mean that has followed b cancels it at inference", "the running mean does not cancel b",
         "absorbed", "<=", 1e-5, essential=True),
    Part("frozen statistics cancel a new b too",
         "frozen statistics do not cancel it: a bias changed later changes the outputs",
         "frozen", "<=", 0.3),
    Part("SGD and momentum leave a bias at 0", "SGD or momentum move the bias", "exact", "<=", 1e-6),
    Part("RMSprop and Adam leave it at 0 in float32",
         "RMSprop and Adam divide its rounding errors by their size, and so move it",
         "adaptive", "<=", 0.005),
    Part("in float64 no optimizer moves it", "an optimizer moves it even in float64", "drift_float64", "<=", 1e-7),
)  # fmt: skip

CLAIM = Claim(
    name="bias-cancels",
    title="A bias before batch norm cancels",
    statement="z = W a + b and mu = W mean(a) + b, so z - mu = W (a - mean(a)): whatever constant b was added is "
    "subtracted out, and the parameters of such a layer are W, gamma and beta.",
    source="equations 1.1 to 1.12 of the derivation of batch normalization with momentum, RMSprop and Adam",
    method="One batch passes a layer with b = 1, 100, 10,000 and a million and without b; the gradient of the bias is "
    "measured; a trained network gets a bias at inference; and networks with biases at 0 are trained 300 steps by four "
    "optimizers.",
    parts=PARTS,
    experiment=experiment,
    draw=draw,
    labels={
        "largest_float32": "largest change of a normalized value for b up to a million, float32",
        "largest_float64": "the same in float64",
        "one_pass_float32": f"change for b = {ONE_PASS:g} in units of rounding with the variance mean(z^2) - mean(z)^2",
        "one_pass_float64": "the same in float64",
    },
)
