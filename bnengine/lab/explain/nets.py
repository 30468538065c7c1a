"""The networks of the experiments, their training in steps, and traced passes."""

from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from typing import Literal, NamedTuple

import numpy as np

from ..._typing import Array
from ...arrays.backend import Backend
from ...data import ArraySource, groups, order
from ...layers import Activation, BatchNorm, Context, Dense, Layer, Placed, chain
from ...layers.initializers import Initializer
from ...layers.tap import tap
from ...losses import SoftmaxCrossEntropy
from ...network.sequential import Sequential
from ...optim.optimizers import Optimizer
from ...optim.schedules import Schedule, get_schedule
from ...runtime.memory import Memory
from ...training.resident import Resident
from ...training.step import Step

Norm = Literal["batch", "normalize-only", "none"]


def perceptron(
    widths: Sequence[int],
    *,
    norm: Norm = "batch",
    activation: str = "relu",
    bias: bool | Literal["auto"] = "auto",
    weights: str | Initializer = "he",
    decay: float | None = 0.9,
    eps: float = 1e-5,
    dtype: str = "float32",
    backend: Backend | None = None,
    seed: int = 0,
) -> Sequential:
    """Dense, BatchNorm and an activation for each hidden width, then Dense: (64, 64, 64, 10) has two hidden layers.

    `norm`: "batch"; "normalize-only" without gamma and beta; "none".
    """
    layers: list[Layer] = []
    for inputs, width in pairwise(widths[:-1]):
        layers.append(Dense(inputs, width, bias=bias, weights=weights))
        if norm != "none":
            affine = norm == "batch"
            layers.append(BatchNorm(width, decay=decay, eps=eps, gamma=affine, beta=affine))
        layers.append(Activation(activation))
    layers.append(Dense(widths[-2], widths[-1], weights=weights))
    return Sequential(*layers, backend=backend, dtype=dtype, seed=seed)


class Training:
    """Trains a classifier and pauses at given steps for inspection.

    `x` (n, features), `y` (n,) class codes.
    """

    def __init__(
        self,
        network: Sequential,
        optimizer: Optimizer,
        x: Array,
        y: Array,
        *,
        rate: float | Schedule,
        batch: int = 64,
        seed: int = 0,
    ) -> None:
        self.network, self.batch, self.seed = network, batch, seed
        self.step, self.schedule = Step(network, optimizer, SoftmaxCrossEntropy()), get_schedule(rate)
        self.source = ArraySource(np.asarray(x, network.dtype), y, dtype=network.dtype)
        self.resident = Resident(self.source, self.step.inputs)
        self.done = 0
        self._parts = [[rows] for rows in groups(self.source.rows, batch, last="drop")]

    @property
    def steps_per_epoch(self) -> int:
        """The full batches of the training rows; each epoch leaves out another remainder."""
        return len(self._parts)

    def run(self, steps: int) -> "Training":
        """Train `steps` more steps."""
        for _ in range(steps):
            at = self.done % len(self._parts)
            if at == 0:
                shuffled = order(self.source.rows, seed=self.seed, epoch=self.done // len(self._parts))
                self.resident.start(shuffled, self._parts)
                rates = self.schedule.for_steps(self.done, len(self._parts))
                self.step.schedule(rates)
            self.step.next(self.resident)
            self.done += 1
        return self

    def every(self, steps: int, until: int) -> Iterator[int]:
        """Train until `until` steps are done; yield the number done, at once and after every `steps`."""
        yield self.done
        while self.done < until:
            self.run(min(steps, until - self.done))
            yield self.done


def logits(network: Sequential, x: Array) -> Array:
    """The outputs in evaluation mode, (n, classes) float64 on the host."""
    with np.errstate(all="ignore"):
        return np.asarray(network.backend.to_numpy(network.predict(np.asarray(x, network.dtype))), np.float64)


def accuracy(network: Sequential, x: Array, y: Array) -> float:
    """The share of rows whose largest logit is that of their label, in evaluation mode; NaN and inf are wrong."""
    outputs = logits(network, x)
    return float(np.mean(np.isfinite(outputs).all(axis=1) & (np.argmax(outputs, axis=1) == y)))


def accuracy_by_batch(network: Sequential, x: Array, y: Array, size: int) -> float:
    """The share of correct rows in training mode, in batches of `size`; a remainder is left out."""
    correct = 0
    for rows in groups(len(x), size, last="drop"):
        output = network.forward(np.asarray(x[rows], network.dtype), training=True, dropout=False).output
        correct += int(np.sum(np.argmax(network.backend.to_numpy(output), axis=1) == y[rows]))
    return correct / (len(x) // size * size)


def loss(network: Sequential, x: Array, y: Array) -> float:
    """The mean softmax cross-entropy in evaluation mode, computed in float64."""
    z = logits(network, x)
    top = z.max(axis=1, keepdims=True)
    losses = top[:, 0] + np.log(np.exp(z - top).sum(axis=1)) - z[np.arange(len(y)), y]
    return float(losses.mean())


class Seen(NamedTuple):
    """A layer with its input and output, and their gradients: float64 on the host."""

    layer: Layer
    x: Array
    y: Array
    dx: Array | None
    dy: Array | None


def look(
    network: Sequential, x: Array, y: Array | None = None, *, training: bool
) -> tuple[list[Seen], dict[str, Array]]:
    """Trace one batch through each layer; with labels `y` also return gradients of the mean loss, by name.

    A fused activation is split off: the `y` of a BatchNorm is the input of its activation.
    """
    backend, value = network.backend, network.asarray(np.asarray(x, network.dtype))
    zero, rows = backend.asarray(np.zeros(1, np.int64)), backend.asarray(np.arange(len(x)))
    run = Context(training, Memory(), network.statistics.like(), network.seed, zero, rows, drops=False)
    layers, values, slopes = list[Layer](), [value], dict[int, Array]()

    def see(here: Placed, output: Array) -> Callable[[Array], None]:
        layers.append(here.layer)
        values.append(output)
        at = len(layers)
        return lambda dy: slopes.__setitem__(at, dy)

    output, pullback = chain(tap(network.fused, see), value, run)
    grads = network.gradients()
    if y is not None:
        divisor = backend.asarray(np.full(1, float(len(y))), network.dtype)
        mean = SoftmaxCrossEntropy()(output, backend.asarray(np.asarray(y)), None, None, divisor)
        slopes[0] = pullback(mean.dlogits, grads)
    host = [np.asarray(backend.to_numpy(each), np.float64) for each in values]
    back = {at: np.asarray(backend.to_numpy(each), np.float64) for at, each in slopes.items()}
    handles = network.named_handles()
    by_name = {
        name: np.asarray(backend.to_numpy(grads[handles[name]]), np.float64) for name in network.named_parameters()
    }
    seen = [Seen(layer, host[i], host[i + 1], back.get(i), back.get(i + 1)) for i, layer in enumerate(layers)]
    return seen, {} if y is None else by_name
