"""JAX as a contender: whole steps, predictions and single ops compiled by jit, with donated state. Needs JAX."""

from collections.abc import Callable
from math import prod
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ..._typing import Array
from .agreement import losses
from .ops import EPS, jax_adam, jax_cross_entropy, jax_normalized, normal_block
from .subjects import Subject, op_of, sampled
from .workloads import LEARNING_RATE, Data, Weights, Workload

DECAY = 0.9


class JaxStep:
    """A network of pure functions with a training step: gather, gradients, Adam and statistics in one jit.

    With `at_once`, steps are a loop inside the jit; one call runs them to the end of an epoch at most.
    """

    def __init__(self, workload: Workload, data: Data, weights: Weights, *, at_once: bool = False) -> None:
        self.workload, self.at_once = workload, at_once
        self.x, self.y = jnp.asarray(data.x), jnp.asarray(data.y.astype(np.int32))
        self.orders = [jnp.asarray(order.astype(np.int32)) for order in data.orders]
        self.parameters, self.statistics = trees(weights, len(workload.pairs))
        self.step, self.loop = (jax.jit(function, donate_argnums=(0, 1)) for function in (self._step, self._loop))
        self.start()

    def start(self) -> None:
        """Go back to the initial weights and the first batch."""
        each = jax.tree_util.tree_map
        parameters = each(jnp.array, self.parameters)
        self.trained = parameters, each(jnp.zeros_like, parameters), each(jnp.zeros_like, parameters), jnp.float32(0)
        self.running = each(jnp.array, self.statistics)
        self.value: Any = None
        self.at = 0

    def run(self, steps: int) -> None:
        """Run steps and wait for them."""
        end = self.at + steps
        while self.at < end:
            done, (epoch, i) = 1, divmod(self.at, self.workload.batches)
            inputs = self.trained, self.running, self.x, self.y, self.orders[epoch % len(self.orders)]
            if self.at_once:
                done = min(end - self.at, self.workload.batches - i)
                self.trained, self.running, self.value = self.loop(*inputs, np.int32(i), np.int32(i + done))
            else:
                self.trained, self.running, self.value = self.step(*inputs, np.int32(i * self.workload.batch))
            self.at += done
        jax.block_until_ready((self.trained, self.value))

    def loss(self) -> float:
        """Return the loss of the last step."""
        return float(self.value)

    def _step(self, trained: Any, running: Any, x: Any, y: Any, order: Any, place: Any) -> tuple[Any, Any, Any]:
        parameters, m, v, t = trained
        rows = jax.lax.dynamic_slice_in_dim(order, place, self.workload.batch)
        loss = jax.value_and_grad(self._loss, has_aux=True)
        (value, running), gradients = loss(parameters, running, x[rows], y[rows])
        parameters, m, v = jax_adam(jax, LEARNING_RATE, parameters, gradients, m, v, t + 1)
        return (parameters, m, v, t + 1), running, value

    def _loop(self, trained: Any, running: Any, x: Any, y: Any, order: Any, begin: Any, end: Any) -> Any:
        def body(i: Any, carried: Any) -> tuple[Any, Any, Any]:
            return self._step(carried[0], carried[1], x, y, order, i * self.workload.batch)

        return jax.lax.fori_loop(begin, end, body, (trained, running, jnp.float32(0)))

    def _loss(self, parameters: Any, running: Any, x: Any, y: Any) -> tuple[Any, Any]:
        *hidden, last = parameters
        statistics, unbiased = [], self.workload.batch / (self.workload.batch - 1)
        for layer, (mean, var) in zip(hidden, running, strict=True):
            x, batch_mean, batch_var = jax_normalized(jnp, x @ layer["W"], layer["gamma"], layer["beta"])
            x = jax.nn.relu(x)
            mean = DECAY * mean + (1 - DECAY) * batch_mean
            statistics.append((mean, DECAY * var + (1 - DECAY) * unbiased * batch_var))
        return jax_cross_entropy(jax, x @ last["W"] + last["b"], y), statistics


def trees(weights: Weights, layers: int) -> tuple[list[Weights], list[tuple[Array, Array]]]:
    """Return the parameters layer by layer, and the running means and variances, in float32."""
    single = {name: np.asarray(array, np.float32) for name, array in weights.items()}
    hidden = [
        {"W": single[f"{3 * i}.W"], "gamma": single[f"{3 * i + 1}.gamma"], "beta": single[f"{3 * i + 1}.beta"]}
        for i in range(layers - 1)
    ]
    statistics = [(single[f"{3 * i + 1}.running_mean"], single[f"{3 * i + 1}.running_var"]) for i in range(layers - 1)]
    last = 3 * (layers - 1)
    return [*hidden, {"W": single[f"{last}.W"], "b": single[f"{last}.b"]}], statistics


def make(kind: str, given: dict[str, Any]) -> Subject:
    """Make what JAX runs of a case."""
    if kind in ("kernel", "prediction"):
        call = _op(given) if kind == "kernel" else _prediction(Workload.from_json(given))
        subject = Subject(_each_waited_for(call), {"sample": sampled(call())})
    else:
        workload = Workload.from_json(given)
        step = JaxStep(workload, workload.data(), workload.weights(), at_once=kind == "steps")
        subject = Subject(step.run, {"losses": losses(step)})
        step.start()
    subject.answer["version"] = str(jax.__version__)
    return subject


def _prediction(workload: Workload) -> Callable[[], Any]:
    """The network with its running statistics; the weights are constants."""
    (*hidden, last), statistics = trees(workload.trained_weights(), len(workload.pairs))

    def forward(x: Any) -> Any:
        for layer, (mean, var) in zip(hidden, statistics, strict=True):
            z = (x @ layer["W"] - mean) * (layer["gamma"] / np.sqrt(var + np.float32(EPS))) + layer["beta"]
            x = jax.nn.relu(z)
        return x @ last["W"] + last["b"]

    compiled, x = jax.jit(forward), jnp.asarray(workload.unseen_rows())
    return lambda: compiled(x)


def _op(given: dict[str, Any]) -> Callable[[], Any]:
    op, shape, _ = op_of(given, cut=True)
    assert op.jax is not None

    def normal(shape: tuple[int, ...], seed: int) -> Any:
        return jnp.asarray(np.resize(normal_block(prod(shape), seed), shape))

    return op.jax(jax, *op.arrays(shape, normal, jnp.asarray))


def _each_waited_for(call: Callable[[], Any]) -> Callable[[int], None]:
    """Return n calls that cannot overlap: JAX would run independent calls at the same time."""

    def run(n: int) -> None:
        for _ in range(n):
            jax.block_until_ready(call())

    return run
