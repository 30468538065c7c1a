"""JAX as a contender: whole steps, predictions and single ops compiled by jit, old state given away."""

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from ..agreement import losses
from ..kernels import ADAM_OPTIONS, LR, targets
from ..machine import BLOCK
from ..workloads import LEARNING_RATE, Data, Workload
from .inputs import Weights, data_of, rows_of, sampled, weights_of, workload_of
from .worker import Subject

EPS, DECAY = 1e-5, 0.9
BETA1, BETA2, SMALL = ADAM_OPTIONS["beta1"], ADAM_OPTIONS["beta2"], ADAM_OPTIONS["eps"]


def make(role: str, kind: str, given: dict[str, Any], folder: Path) -> Subject:
    """What this role runs of a case; ImportError where JAX is not installed."""
    jax = importlib.import_module("jax")
    if kind == "kernel":
        found = kernel(jax, role, given, folder)
    elif kind == "prediction":
        found = prediction(jax, role, workload_of(given), folder)
    else:
        one = JaxStep(jax, workload_of(given), data_of(folder), weights_of(folder), at_once=kind == "steps")
        found = Subject(one.run, {"losses": losses(one)})
        one.start()
    found.answer["version"] = str(jax.__version__)
    return found


def normalized(jnp: Any, x: Any, gamma: Any, beta: Any) -> tuple[Any, Any, Any]:
    """Batch normalisation in training, with mean and biased variance."""
    mean = jnp.mean(x, axis=0)
    centred = x - mean
    var = jnp.mean(centred * centred, axis=0)
    return centred * (gamma / jnp.sqrt(var + EPS)) + beta, mean, var


def cross_entropy(jax: Any, logits: Any, classes: Any) -> Any:
    """The mean over the rows."""
    picked = jax.numpy.take_along_axis(jax.nn.log_softmax(logits), classes[:, None], axis=1)
    return -jax.numpy.mean(picked)


def moved(jax: Any, lr: float, parameters: Any, gradients: Any, m: Any, v: Any, t: Any) -> tuple[Any, Any, Any]:
    """One update by Adam of whatever tree of arrays; t counts from 1."""
    each = jax.tree_util.tree_map
    m = each(lambda old, g: BETA1 * old + (1 - BETA1) * g, m, gradients)
    v = each(lambda old, g: BETA2 * old + (1 - BETA2) * g * g, v, gradients)
    first, second = 1 - BETA1**t, 1 - BETA2**t

    def move(p: Any, a: Any, b: Any) -> Any:
        return p - lr * (a / first) / (jax.numpy.sqrt(b / second) + SMALL)

    return each(move, parameters, m, v), m, v


class JaxStep:
    """A network of pure functions with a training step: gather, both ways, Adam and statistics in one jit.

    `at_once`: steps are a loop inside the jit, which one call goes through to the end of an epoch at most.
    """

    def __init__(self, jax: Any, workload: Workload, data: Data, weights: Weights, *, at_once: bool = False) -> None:
        jnp, self.at_once = jax.numpy, at_once
        self.jax, self.workload = jax, workload
        self.x, self.y = jnp.asarray(data.x), jnp.asarray(data.y.astype(np.int32))
        self.orders = [jnp.asarray(order.astype(np.int32)) for order in data.orders]
        self.parameters, self.statistics = trees(weights, len(workload.pairs))
        self.step, self.loop = (jax.jit(one, donate_argnums=(0, 1)) for one in (self._step, self._loop))
        self.start()

    def start(self) -> None:
        """The initial weights, and the first batch."""
        jnp, each = self.jax.numpy, self.jax.tree_util.tree_map
        parameters = each(jnp.array, self.parameters)
        self.trained = parameters, each(jnp.zeros_like, parameters), each(jnp.zeros_like, parameters), jnp.float32(0)
        self.kept = each(jnp.array, self.statistics)
        self.value: Any = None
        self.at = 0

    def run(self, steps: int) -> None:
        """So many steps; the last one is waited for."""
        end = self.at + steps
        while self.at < end:
            done, (epoch, i) = 1, divmod(self.at, self.workload.batches)
            given = self.trained, self.kept, self.x, self.y, self.orders[epoch % len(self.orders)]
            if self.at_once:
                done = min(end - self.at, self.workload.batches - i)
                self.trained, self.kept, self.value = self.loop(*given, np.int32(i), np.int32(i + done))
            else:
                self.trained, self.kept, self.value = self.step(*given, np.int32(i * self.workload.batch))
            self.at += done
        self.jax.block_until_ready((self.trained, self.value))

    def loss(self) -> float:
        """The last step's."""
        return float(self.value)

    def _step(self, trained: Any, kept: Any, x: Any, y: Any, order: Any, place: Any) -> tuple[Any, Any, Any]:
        parameters, m, v, t = trained
        rows = self.jax.lax.dynamic_slice_in_dim(order, place, self.workload.batch)
        taken = x[rows], y[rows]
        (value, kept), gradients = self.jax.value_and_grad(self._loss, has_aux=True)(parameters, kept, *taken)
        t = t + 1
        parameters, m, v = moved(self.jax, LEARNING_RATE, parameters, gradients, m, v, t)
        return (parameters, m, v, t), kept, value

    def _loop(self, trained: Any, kept: Any, x: Any, y: Any, order: Any, begin: Any, end: Any) -> tuple[Any, Any, Any]:
        def one(i: Any, carried: Any) -> tuple[Any, Any, Any]:
            trained, kept, _ = carried
            return self._step(trained, kept, x, y, order, i * self.workload.batch)

        loop: Callable[..., tuple[Any, Any, Any]] = self.jax.lax.fori_loop
        return loop(begin, end, one, (trained, kept, self.jax.numpy.float32(0)))

    def _loss(self, parameters: Any, kept: Any, x: Any, y: Any) -> tuple[Any, Any]:
        *hidden, last = parameters
        statistics, unbiased = [], self.workload.batch / (self.workload.batch - 1)
        for layer, (mean, var) in zip(hidden, kept, strict=True):
            x, batch_mean, batch_var = normalized(self.jax.numpy, x @ layer["W"], layer["gamma"], layer["beta"])
            x = self.jax.nn.relu(x)
            mean = DECAY * mean + (1 - DECAY) * batch_mean
            statistics.append((mean, DECAY * var + (1 - DECAY) * unbiased * batch_var))
        return cross_entropy(self.jax, x @ last["W"] + last["b"], y), statistics


def trees(weights: Weights, layers: int) -> tuple[list[Weights], list[tuple[Any, Any]]]:
    """The parameters layer by layer, and the running means and variances, in float32."""
    single = {name: np.asarray(array, np.float32) for name, array in weights.items()}
    parameters = [
        {"W": single[f"{3 * i}.W"], "gamma": single[f"{3 * i + 1}.gamma"], "beta": single[f"{3 * i + 1}.beta"]}
        for i in range(layers - 1)
    ]
    last = 3 * (layers - 1)
    statistics = [(single[f"{3 * i + 1}.running_mean"], single[f"{3 * i + 1}.running_var"]) for i in range(layers - 1)]
    return [*parameters, {"W": single[f"{last}.W"], "b": single[f"{last}.b"]}], statistics


def prediction(jax: Any, role: str, workload: Workload, folder: Path) -> Subject:
    """The network by its running statistics; the weights are constants."""
    parameters, statistics = trees(weights_of(folder), len(workload.pairs))
    *hidden, last = parameters

    def forward(x: Any) -> Any:
        for layer, (mean, var) in zip(hidden, statistics, strict=True):
            z = (x @ layer["W"] - mean) * (layer["gamma"] / np.sqrt(var + np.float32(EPS))) + layer["beta"]
            x = jax.nn.relu(z)
        return x @ last["W"] + last["b"]

    compiled, x = jax.jit(forward), jax.numpy.asarray(rows_of(folder))
    return Subject(waiting(jax, lambda: compiled(x)), sampled(compiled(x), folder, role))


def kernel(jax: Any, role: str, given: dict[str, Any], folder: Path) -> Subject:
    """A single op."""
    call = OPS[given["op"]](jax, tuple(given["shape"]), given.get("tensors", 1))
    return Subject(waiting(jax, call), sampled(call(), folder, role))


def waiting(jax: Any, call: Callable[[], Any]) -> Callable[[int], None]:
    """n calls, each waited for: those that do not depend on one another would run side by side."""

    def run(n: int) -> None:
        for _ in range(n):
            jax.block_until_ready(call())

    return run


def drawn(jax: Any, shape: tuple[int, ...], seed: int) -> Any:
    """The numbers that `Machine.random` gives."""
    size = int(np.prod(shape))
    block = np.random.default_rng(seed).standard_normal(min(size, BLOCK), dtype=np.float32)
    return jax.numpy.asarray(np.resize(block, shape))


def batch_norm(jax: Any, shape: tuple[int, ...], _tensors: int) -> Callable[[], Any]:
    x, dy = (drawn(jax, shape, seed) for seed in (1, 2))
    gamma, beta = (drawn(jax, shape[1:], seed) for seed in (3, 4))

    def both(x: Any, gamma: Any, beta: Any, dy: Any) -> tuple[Any, Any]:
        y, back = jax.vjp(lambda *given: normalized(jax.numpy, *given)[0], x, gamma, beta)
        return y, back(dy)

    compiled = jax.jit(both)
    return lambda: compiled(x, gamma, beta, dy)[1][0]


def adam(jax: Any, shape: tuple[int, ...], tensors: int) -> Callable[[], Any]:
    jnp = jax.numpy
    p, g = (list(drawn(jax, shape, seed).reshape(tensors, -1)) for seed in (1, 2))
    held = [p, [jnp.zeros_like(a) for a in p], [jnp.zeros_like(a) for a in p], jnp.float32(0)]

    def update(p: Any, g: Any, m: Any, v: Any, t: Any) -> tuple[Any, ...]:
        return *moved(jax, LR, p, g, m, v, t + 1), t + 1

    compiled = jax.jit(update, donate_argnums=(0, 2, 3))

    def call() -> Any:
        held[:] = compiled(held[0], g, *held[1:])
        return held[0]

    return call


def softmax(jax: Any, shape: tuple[int, ...], _tensors: int) -> Callable[[], Any]:
    logits, classes = drawn(jax, shape, 1), jax.numpy.asarray(targets(shape).astype(np.int32))
    both = jax.jit(jax.value_and_grad(lambda z: cross_entropy(jax, z, classes)))
    return lambda: both(logits)[1]


OPS = {"batch_norm": batch_norm, "adam": adam, "softmax": softmax}
