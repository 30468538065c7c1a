"""What a step needs, beside its network, to go on bit for bit: as named NumPy arrays, out of it and into it."""

from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import InputError
from ..ops.update import ROW
from ..runtime.flat import Parameter

if TYPE_CHECKING:
    from .step import Step


def state_of(step: "Step") -> dict[str, np.ndarray]:
    """Optimizer state, counters and averages."""
    network, read = step.network, step.backend.to_numpy
    held = {"counters": step.counters, "sums": step.sums, "norm": step.verdict.norm}
    held |= {} if step.scaling.array is None else {"scaling": step.scaling.array}
    state = {name: read(array, copy=True) for name, array in held.items()}
    state["counters"][ROW] = 0  # a place in the table of rates, which `schedule` gives anew
    for slot, flat in step.slots.items():
        if flat is not None:
            named = network.export(flat, network.statistics)
            state.update({f"optimizer.{slot}.{name}": named[name] for name in network.named_parameters()})
    if step.averaged is not None:
        state.update({f"average.{name}": array for name, array in network.export(*step.averaged).items()})
    return state


def load_state(step: "Step", state: dict[str, Any]) -> None:
    """All or nothing: a missing, unknown or misshapen entry is an error."""
    network, backend = step.network, step.backend
    expected = state_of(step)
    if wrong := sorted(expected.keys() ^ state.keys()):
        raise InputError(
            f"Step.load_state_dict: {', '.join(wrong[:4])} missing or unknown; the optimizer must be the one "
            "that was saved, and so must the loss scale"
        )
    for name, array in expected.items():
        if np.shape(state[name]) != array.shape:
            raise InputError(f"Step.load_state_dict: {name} has shape {np.shape(state[name])}; needed is {array.shape}")
    new = [(step.counters, backend.asarray(state["counters"], "int64"))]
    new += [
        (array, backend.asarray(state[name], "float64"))
        for name, array in (("sums", step.sums), ("norm", step.verdict.norm))
    ]
    handles = [(n, h) for n, h in network.named_handles().items() if isinstance(h, Parameter)]
    for slot, flat in step.slots.items():
        if flat is not None:
            new += [(flat[h], backend.asarray(state[f"optimizer.{slot}.{n}"], network.dtype)) for n, h in handles]
    if step.averaged is not None:
        averaged = {k.removeprefix("average."): v for k, v in state.items() if k.startswith("average.")}
        network.import_into(averaged, *step.averaged)
    if step.scaling.array is not None:
        new.append((step.scaling.array, backend.asarray(state["scaling"], network.dtype)))
    for view, array in new:
        view[...] = array
