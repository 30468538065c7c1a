"""Find the layer in which a step first stopped being finite."""

from dataclasses import replace
from typing import Any

import numpy as np

from .._typing import Array
from ..arrays.backend import Backend
from ..data import Batch
from ..layers import Context, Placed
from ..runtime.flat import Parameter, Statistics
from ..runtime.memory import Memory
from .step import Step


def first_non_finite(step: Step, batch: Batch) -> str | None:
    """Run a skipped step's batch again, layer by layer, and describe the first inf or NaN.

    Nothing changes: the skipped step left parameters, state and counters as they were.

    Returns:
        Where the first value is: input, parameter, layer, loss or gradient; None if the step is finite this time.
    """
    network, backend = step.network, step.backend
    with np.errstate(all="ignore"):
        for name, array in network.named_parameters().items():
            if value := _broken(backend.to_numpy(array)):
                return f"parameter {name} holds {value}"
        micro = step.inputs.put(0, batch)
        if value := _broken(backend.to_numpy(micro.x)):
            return f"the input holds {value}"
        target = backend.to_numpy(micro.target)
        if target.dtype.kind == "f" and (value := _broken(target)):
            return f"the target holds {value}"
        return _forward(step, micro, batch)


def _forward(step: Step, micro: Any, batch: Batch) -> str | None:
    network, backend, memory = step.network, step.backend, Memory()
    keys = network.seed, step.state.counters[:1], micro.samples
    run = Context(True, memory, network.statistics.like(), *keys, products=network.products)
    x, pulls = micro.x, []
    for here in network.fused:
        if value := _inside(here, x, run, backend):
            return value
        x, pull = here.forward(x, run)
        pulls.append((here, pull))
    total = backend.asarray(np.asarray([step.inputs.total([batch])]), network.dtype)
    loss, dy = step.state.loss(
        x, micro.target, micro.weights, step.state.constants, total, **step.state.scaling.loss_options()
    )
    if value := _broken(backend.to_numpy(loss)):
        return f"the loss is {value}"
    grads = network.gradients()
    for i, (here, pull) in reversed(list(enumerate(pulls))):
        dy = pull(dy, grads, dx=i > 0)
        for name, handle in _parameters(here):
            if value := _broken(backend.to_numpy(grads[handle])):
                return f"a gradient of {name} holds {value}"
        if i and (value := _broken(backend.to_numpy(dy))):
            return f"the gradient of the input of {here.name} holds {value}"
    with np.errstate(over="ignore"):
        if not np.isfinite(np.sum(backend.to_numpy(grads.array).astype(np.float64) ** 2)):
            return "the gradients are finite, but their norm is not"
    return None


def _inside(here: Placed, x: Array, run: Context, backend: Backend) -> str:
    """Describe what is not finite in the output or the batch statistics of the innermost layer; "" for nothing."""
    h = x
    for part in here.body[:-1] if here.sums else here.body:
        if value := _inside(part, h, run, backend):
            return value
        h, _ = part.forward(h, run)
    normalized = here.body[-1] if here.sums else here
    run = replace(run, pending=run.pending.like())
    y, _ = here.forward(x, run)
    for handle in normalized.handles().values():
        if isinstance(handle, Statistics) and (value := _broken(backend.to_numpy(run.pending[handle]))):
            return f"the batch statistics of {normalized.name} hold {value} of (count, mean, var)"
    value = _broken(backend.to_numpy(y))
    return value and f"the output of {here.name} holds {value}"


def _parameters(here: Placed) -> list[tuple[str, Parameter]]:
    """Return (layer's name, handle) of the parameters of a layer, also of those inside a Residual."""
    parameters = [(here.name, h) for h in here.handles().values() if isinstance(h, Parameter)]
    return parameters + [inner for part in here.body for inner in _parameters(part)]


def _broken(array: Array) -> str:
    """Return "nan at (3, 5)" for the first value that is not finite, "" for none."""
    bad = ~np.isfinite(array)
    if not bad.any():
        return ""
    place = tuple(int(i) for i in np.argwhere(bad)[0])
    return f"{array[place]} at {place}"
