"""Which layer was the first to go non-finite."""

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
    """Run a batch once more, layer by layer, and describe the first inf or NaN: in input, layer, loss or gradient.

    None if the step is finite this time.

    Nothing is changed: a skipped step left parameters, state and counters as they were when it began.
    """
    network, backend = step.network, step.backend
    with np.errstate(all="ignore"):
        for name, array in network.named_parameters().items():
            if found := _broken(backend.to_numpy(array)):
                return f"parameter {name} holds {found}"
        micro = step.inputs.put(0, batch)
        if found := _broken(backend.to_numpy(micro.x)):
            return f"the input holds {found}"
        target = backend.to_numpy(micro.target)
        if target.dtype.kind == "f" and (found := _broken(target)):
            return f"the target holds {found}"
        return _forward(step, micro, batch)


def _forward(step: Step, micro: Any, batch: Batch) -> str | None:
    network, backend, memory = step.network, step.backend, Memory()
    keys = network.seed, step.state.counters[:1], micro.samples
    run = Context(True, memory, network.statistics.like(), *keys, products=network.products)
    x, pulls = micro.x, []
    for here in network.fused:
        if found := _inside(here, x, run, backend):
            return found
        x, pull = here.forward(x, run)
        pulls.append((here, pull))
    total = backend.asarray(np.asarray([step.inputs.total([batch])]), network.dtype)
    value, dy = step.state.loss(
        x, micro.target, micro.weights, step.state.constants, total, **step.state.scaling.of_loss()
    )
    if found := _broken(backend.to_numpy(value)):
        return f"the loss is {found}"
    grads = network.gradients()
    for i, (here, pull) in reversed(list(enumerate(pulls))):
        dy = pull(dy, grads, dx=i > 0)
        for name, handle in _parameters(here):
            if found := _broken(backend.to_numpy(grads[handle])):
                return f"a gradient of {name} holds {found}"
        if i and (found := _broken(backend.to_numpy(dy))):
            return f"the gradient behind {here.name} holds {found}"
    with np.errstate(over="ignore"):
        if not np.isfinite(np.sum(backend.to_numpy(grads.array).astype(np.float64) ** 2)):
            return "the gradients are finite, but their norm is not"
    return None


def _inside(here: Placed, x: Array, run: Context, backend: Backend) -> str:
    """What is not finite in the output or the batch statistics of the innermost layer; "" for nothing."""
    h = x
    for part in here.body[:-1] if here.sums else here.body:
        if found := _inside(part, h, run, backend):
            return found
        h, _ = part.forward(h, run)
    normalized = here.body[-1] if here.sums else here
    run = replace(run, pending=run.pending.like())
    y, _ = here.forward(x, run)
    for handle in normalized.handles().values():
        if isinstance(handle, Statistics) and (found := _broken(backend.to_numpy(run.pending[handle]))):
            return f"the batch statistics of {normalized.name} hold {found} of (count, mean, var)"
    found = _broken(backend.to_numpy(y))
    return found and f"the output of {here.name} holds {found}"


def _parameters(here: Placed) -> list[tuple[str, Parameter]]:
    """(layer's name, handle) of what is trained in a layer, those inside a residual too."""
    own = [(here.name, h) for h in here.handles().values() if isinstance(h, Parameter)]
    return own + [found for part in here.body for found in _parameters(part)]


def _broken(array: Array) -> str:
    """Such as "nan at (3, 5)" for the first value that is not finite, "" for none."""
    bad = ~np.isfinite(array)
    if not bad.any():
        return ""
    place = tuple(int(i) for i in np.argwhere(bad)[0])
    return f"{array[place]} at {place}"
