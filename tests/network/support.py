"""What tests of layers, networks and steps share: steps that are ready to run, batches, every bit of their state."""

from itertools import pairwise
from typing import Any

import numpy as np

from bnengine.data import Batch
from bnengine.layers import BatchNorm
from bnengine.losses import LossFunction, MeanSquaredError
from bnengine.network.sequential import Sequential
from bnengine.optim.optimizers import SGD, Optimizer
from bnengine.training.step import Step

U = 2.0**-53


def batch(x: Any, y: Any, *, first: int = 0, weights: Any = None) -> Batch:
    """Rows as a batch; the samples are numbered from `first`."""
    return Batch(x, y, weights, np.arange(first, first + len(x), dtype=np.int64))


def cut(whole: Batch, *ends: int) -> list[Batch]:
    """A batch cut into micro-batches in front of the given rows."""
    edges = [0, *ends, len(whole.x)]
    return [Batch(*(None if part is None else part[a:b] for part in whole)) for a, b in pairwise(edges)]


def step_of(
    network: Sequential,
    optimizer: Optimizer | None = None,
    loss: LossFunction | None = None,
    *,
    rate: float = 0.1,
    **options: Any,
) -> Step:
    """A step with a learning rate that stays the same."""
    step = Step(network, optimizer or SGD(), loss or MeanSquaredError(), **options)
    step.schedule([rate])
    return step


def bits(step: Step) -> dict[str, bytes]:
    """Every bit of parameters, running statistics, the optimizer's state and the averages: all but the counters."""
    network = step.network
    arrays = {"parameters": network.parameters.array, "statistics": network.statistics.array}
    arrays |= {name: flat.array for name, flat in step.state.slots.items() if flat is not None}
    if step.state.averaged is not None:
        arrays |= {f"averaged {i}": flat.array for i, flat in enumerate(step.state.averaged)}
    return {name: network.backend.to_numpy(array).tobytes() for name, array in arrays.items()}


def network_bits(network: Sequential) -> tuple[bytes, bytes]:
    """Every bit of parameters and running statistics."""
    read = network.backend.to_numpy
    return read(network.parameters.array).tobytes(), read(network.statistics.array).tobytes()


def statistics_of(x: Any) -> np.ndarray:
    """(count, mean, biased variance) of the columns of x, by their definitions in float64."""
    rows = np.asarray(x, np.float64).reshape(-1, np.shape(x)[-1])
    return np.stack([np.full(rows.shape[1], len(rows)), rows.mean(0), rows.var(0)])


def only(layer: BatchNorm, **options: Any) -> Sequential:
    """A network of one layer, in float64."""
    return Sequential(layer, backend="numpy", dtype="float64", **options)


def running(network: Sequential, name: str = "0.statistics") -> np.ndarray:
    """A copy of a layer's running (count, mean, var)."""
    return network.backend.to_numpy(network.named_statistics()[name], copy=True)


def collected(network: Sequential, rng: np.random.Generator) -> Sequential:
    """The network with running statistics of some other data, so that it can be evaluated."""
    for array in network.named_statistics().values():
        count, mean, var = rng.integers(5, 9), rng.standard_normal(array.shape[1]), rng.random(array.shape[1]) + 0.5
        array[...] = network.backend.asarray(np.stack([np.full_like(mean, count), mean, var]))
    return network


FIRST = np.zeros(1, np.int64)  # a step, for the same dropout in each call


def slope_error(network: Sequential, x: np.ndarray, rng: np.random.Generator, *, training: bool) -> float:
    """How far the pullback's slope along random directions is from the difference quotient, relative to its size.

    The function is sum(c * output) with random c; the direction goes through all parameters and the input at once.
    """
    start = network.parameters.array.copy()
    c = rng.standard_normal(network.forward(x, training=training, step=FIRST).output.shape)
    grads = network.gradients()
    dx = network.forward(x, training=training, step=FIRST).pullback(c, grads)
    grads.finish()
    worst = 0.0
    for _ in range(5):
        dp, du = rng.standard_normal(start.shape), rng.standard_normal(x.shape)

        def value(h: float, dp: np.ndarray = dp, du: np.ndarray = du) -> float:
            network.parameters.array[...] = start + h * dp
            return float(np.sum(c * network.forward(x + h * du, training=training, step=FIRST).output))

        h = 1e-5
        quotient = (8 * (value(h) - value(-h)) - (value(2 * h) - value(-2 * h))) / (12 * h)
        slope = float(np.sum(grads.array * dp) + np.sum(dx * du))
        size = float(np.sum(np.abs(grads.array * dp)) + np.sum(np.abs(dx * du)))
        worst = max(worst, abs(slope - quotient) / size)
    network.parameters.array[...] = start
    return worst
