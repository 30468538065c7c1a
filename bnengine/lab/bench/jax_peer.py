"""JAX as a contender: whole steps, predictions and single ops compiled by jit, with donated state. Needs JAX."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ..._typing import Array
from .ops import ADAM_EPS, BETA1, BETA2, EPS, LR
from .subjects import Call, Peer, Subject, Training
from .workloads import LEARNING_RATE, Data, Workload

DECAY = 0.9
PARAMETERS, STATISTICS = ("W", "b", "gamma", "beta"), ("running_mean", "running_var")
each = jax.tree_util.tree_map


def normalized(x: Any, gamma: Any, beta: Any) -> tuple[Any, Any, Any]:
    """Batch norm in training, with mean and biased variance."""
    mean = jnp.mean(x, axis=0)
    centered = x - mean
    var = jnp.mean(centered * centered, axis=0)
    return centered * (gamma / jnp.sqrt(var + EPS)) + beta, mean, var


def adam(rate: float, parameters: Any, gradients: Any, m: Any, v: Any, t: Any) -> tuple[Any, Any, Any]:
    """Update any tree of arrays; t counts from 1."""
    m = each(lambda old, g: BETA1 * old + (1 - BETA1) * g, m, gradients)
    v = each(lambda old, g: BETA2 * old + (1 - BETA2) * g * g, v, gradients)
    first, second = 1 - BETA1**t, 1 - BETA2**t
    return each(lambda p, a, b: p - rate * (a / first) / (jnp.sqrt(b / second) + ADAM_EPS), parameters, m, v), m, v


def cross_entropy(logits: Any, labels: Any) -> Any:
    """The mean over the rows."""
    return -jnp.mean(jnp.take_along_axis(jax.nn.log_softmax(logits), labels[:, None], axis=1))


class JaxStep(Training):
    """A network of pure functions with a training step: gather, gradients, Adam and statistics in one jit.

    With `at_once`, steps are a loop inside the jit; one call runs them to the end of an epoch at most.
    """

    def __init__(self, workload: Workload, data: Data, at_once: bool = False) -> None:
        super().__init__(workload, data)
        self.at_once, blocks = at_once, workload.blocks()
        self.x, self.y = jnp.asarray(data.x), jnp.asarray(data.y.astype(np.int32))
        self.orders = [jnp.asarray(order.astype(np.int32)) for order in data.orders]
        self.parameters = [{key: block[key] for key in PARAMETERS if key in block} for block in blocks]
        self.statistics = [tuple(block[key] for key in STATISTICS) for block in blocks[:-1]]
        self.step = jax.jit(self._steps if at_once else self._step, donate_argnums=(0,))
        self.start()

    def reset(self) -> None:
        parameters = each(jnp.array, self.parameters)
        zeros = [each(jnp.zeros_like, parameters) for _ in range(2)]
        self.state: Any = parameters, *zeros, jnp.float32(0), each(jnp.array, self.statistics)
        self.value: Any = None

    def run(self, steps: int) -> None:
        """Run steps and wait for them."""
        super().run(steps)
        jax.block_until_ready((self.state, self.value))

    def go(self, epoch: int, batch: int, most: int) -> int:
        done = min(most, self.workload.batches - batch) if self.at_once else 1
        place = (batch, batch + done) if self.at_once else (batch * self.workload.batch,)
        self.state, self.value = self.step(self.state, self.x, self.y, self.orders[epoch], *map(np.int32, place))
        return done

    def loss(self) -> float:
        return float(self.value)

    def _step(self, state: Any, x: Any, y: Any, order: Any, place: Any) -> tuple[Any, Any]:
        parameters, m, v, t, running = state
        rows = jax.lax.dynamic_slice_in_dim(order, place, self.workload.batch)
        loss = jax.value_and_grad(self._loss, has_aux=True)
        (value, running), gradients = loss(parameters, running, x[rows], y[rows])
        return (*adam(LEARNING_RATE, parameters, gradients, m, v, t + 1), t + 1, running), value

    def _steps(self, state: Any, x: Any, y: Any, order: Any, begin: Any, end: Any) -> Any:
        def body(i: Any, carried: Any) -> tuple[Any, Any]:
            return self._step(carried[0], x, y, order, i * self.workload.batch)

        return jax.lax.fori_loop(begin, end, body, (state, jnp.float32(0)))

    def _loss(self, parameters: Any, running: Any, x: Any, y: Any) -> tuple[Any, Any]:
        *hidden, last = parameters
        statistics, unbiased = [], self.workload.batch / (self.workload.batch - 1)
        for layer, (mean, var) in zip(hidden, running, strict=True):
            x, batch_mean, batch_var = normalized(x @ layer["W"], layer["gamma"], layer["beta"])
            x = jax.nn.relu(x)
            mean = DECAY * mean + (1 - DECAY) * batch_mean
            statistics.append((mean, DECAY * var + (1 - DECAY) * unbiased * batch_var))
        return cross_entropy(x @ last["W"] + last["b"], y), statistics


class JaxPeer(Peer):
    """JAX. Every call is waited for, since JAX would run independent calls at the same time."""

    cuts = True

    def __init__(self) -> None:
        super().__init__(version=str(jax.__version__))

    def training(self, workload: Workload, data: Data, _precision: str, at_once: bool) -> JaxStep:
        return JaxStep(workload, data, at_once)

    def prediction(self, workload: Workload, rows: Array) -> Subject:
        """The network with its running statistics; the weights are constants."""
        *hidden, last = workload.blocks(trained=True)

        def forward(x: Any) -> Any:
            for block in hidden:
                scale = block["gamma"] / np.sqrt(block["running_var"] + np.float32(EPS))
                x = jax.nn.relu((x @ block["W"] - block["running_mean"]) * scale + block["beta"])
            return x @ last["W"] + last["b"]

        compiled, x = jax.jit(forward), jnp.asarray(rows)
        return self.called(lambda: compiled(x))

    def put(self, array: Array, _dtype: str, shape: tuple[int, ...]) -> Any:
        return jnp.resize(jnp.asarray(array), shape)

    def op(self, op: str, arrays: list[Any]) -> Subject:
        return self.called({"batch_norm": _batch_norm, "adam": _adam, "softmax": _softmax}[op](*arrays))

    def called(self, call: Call, result: Any = None) -> Subject:
        return super().called(lambda: jax.block_until_ready(call()), result)


def _batch_norm(x: Any, dy: Any, gamma: Any, beta: Any) -> Call:
    def both(x: Any, gamma: Any, beta: Any, dy: Any) -> tuple[Any, Any]:
        y, backward = jax.vjp(lambda *inputs: normalized(*inputs)[0], x, gamma, beta)
        return y, backward(dy)

    compiled = jax.jit(both)
    return lambda: compiled(x, gamma, beta, dy)[1][0]


def _adam(*inputs: Any) -> Call:
    p, g, m, v = (list(array) if array.ndim > 1 else [array] for array in inputs[:4])
    state = [p, m, v, jnp.float32(0)]
    update = jax.jit(lambda p, g, m, v, t: (*adam(LR, p, g, m, v, t + 1), t + 1), donate_argnums=(0, 2, 3))

    def call() -> Any:
        state[:] = update(state[0], g, *state[1:])
        return state[0]

    return call


def _softmax(logits: Any, labels: Any, _total: Any) -> Call:
    both = jax.jit(jax.value_and_grad(lambda z: cross_entropy(z, labels)))
    return lambda: both(logits)[1]
