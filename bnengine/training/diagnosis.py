"""Which layer was the first to go non-finite."""

from typing import Any

import numpy as np

from .._typing import Array
from ..data import Batch
from ..layers import Pass
from ..memory import Fresh
from .step import Step


def first_non_finite(step: Step, batch: Batch) -> str:
    """Run a batch once more, layer by layer, and say in words where the first inf or NaN appears: input, layer, loss, gradient.

    Nothing is changed: a skipped step left parameters, state and counters as they were when it began.
    """
    network, backend = step.network, step.backend
    with np.errstate(all="ignore"):
        for name, array in network.named_parameters().items():
            if found := _broken(backend.to_numpy(array)):
                return f"parameter {name} holds {found}"
        micro = step.upload(batch)
        if found := _broken(backend.to_numpy(micro.x)):
            return f"the input holds {found}"
        target = backend.to_numpy(micro.target)
        if target.dtype.kind == "f" and (found := _broken(target)):
            return f"the target holds {found}"
        return _forward(step, micro, batch)


def _forward(step: Step, micro: Any, batch: Batch) -> str:
    network, backend, memory = step.network, step.backend, Fresh()
    run = Pass(True, memory, network.statistics.like(), network.seed, step.counters[:1], micro.samples)
    x, pulls = micro.x, []
    for layer in network.layers:
        x, pull = layer.forward(x, run)
        pulls.append((layer, pull))
        if found := _broken(backend.to_numpy(x)):
            return f"the output of {layer.name} holds {found}"
    total = backend.asarray(np.asarray([step.total([batch])]), network.dtype)
    value, dy = step.loss(x, micro.target, micro.weights, step.constants, total)
    if found := _broken(backend.to_numpy(value)):
        return f"the loss is {found}"
    grads = network.gradients()
    for i, (layer, pull) in reversed(list(enumerate(pulls))):
        dy = pull(dy, grads, dx=i > 0)
        for handle in layer.handles().values():
            if handle in grads.offsets and (found := _broken(backend.to_numpy(grads[handle]))):
                return f"a gradient of {layer.name} holds {found}"
        if i and (found := _broken(backend.to_numpy(dy))):
            return f"the gradient behind {layer.name} holds {found}"
    return "nothing that can be seen again: the step was finite this time"


def _broken(array: Array) -> str:
    """Such as "nan at (3, 5)" for the first value that is not finite, "" for none."""
    bad = ~np.isfinite(array)
    if not bad.any():
        return ""
    place = tuple(int(i) for i in np.argwhere(bad)[0])
    return f"{array[place]} at {place}"
