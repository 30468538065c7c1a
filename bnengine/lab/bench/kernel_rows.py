"""The rows of single ops: ours beside PyTorch's, in turns, with the share of the measured bandwidth."""

from collections.abc import Callable
from typing import Any

import numpy as np

from ..._typing import Array
from ...runtime.memory import Arena
from ...runtime.plan import Plan
from .kernels import Kernel
from .machine import Machine, Rates
from .timing import Deadline, Spread, first_line, in_turns, ratios, repetitions, spread
from .torch_kernels import peer

ROUNDS, QUICK_ROUNDS = 21, 5
ROUND = 0.02  # seconds that a round of one op is to last
SAMPLED = 64  # rows whose results are compared
HOW = (
    "the recorded launches again and again on arrays larger than the cache, between two CUDA events; PyTorch's op in "
    "turns with it"
)


def row_of(
    machine: Machine, kernel: Kernel, torch: Any, rates: Rates, deadline: Deadline, *, quick: bool = False
) -> dict[str, Any]:
    """The row of one op; what went wrong is told in it (`void`), or in its peer's part."""
    row = _empty(kernel)
    try:
        replay, plan, result = _record(machine, kernel)
        call = None if torch is None or not kernel.peer else _peer(machine, kernel, torch, row, result)
        seconds = _time(machine, replay, call, row, deadline, QUICK_ROUNDS if quick else ROUNDS)
    except Exception as error:  # no memory, no compiler: the next op may do
        return {**row, "void": first_line(error)}
    row["launches"] = len(plan.launches)
    row["working_set"], row["cache_bytes"] = _touched(plan), machine.cache_bytes
    return {**row, **rated(kernel, seconds, rates)}


def rated(kernel: Kernel, seconds: Spread, rates: Rates) -> dict[str, Any]:
    """Time, the rate that it means by the kernel's model, and its share of the machine's measured rate."""
    if seconds.median <= 0:
        return {"void": "the device's clock counted no time"}
    rate = kernel.amount / seconds.median
    whole = rates.bytes if kernel.unit == "bytes" else rates.flops["highest"]
    return {"seconds": seconds.to_json(), "rate": rate, "share": rate / whole if whole else None}


def _empty(kernel: Kernel) -> dict[str, Any]:
    row: dict[str, Any] = {"kind": "kernel", "what": kernel.what, "variant": kernel.variant, "name": "bnengine"}
    row |= {"shape": list(kernel.shape), kernel.unit: kernel.amount, "model": kernel.model, "unit": kernel.unit}
    return row | {"how": HOW, "seconds": None, "share": None, "ratio": None, "peer": None, "void": None}


def _record(machine: Machine, kernel: Kernel) -> tuple[Callable[[], None], Plan, Array]:
    """(what replays the launches, its plan, a sample of the result); an op without a fused version is an error."""
    owned, call = kernel.ours(machine, kernel.shape, kernel.variant)
    memory = Arena("fused")
    with memory.recording(owned) as plan:
        memory.begin()
        result = call(memory)
    return plan.replay, plan, machine.backend.to_numpy(result[:SAMPLED, ...], copy=True)


def _peer(
    machine: Machine, kernel: Kernel, torch: Any, row: dict[str, Any], ours: Array
) -> Callable[[], object] | None:
    """PyTorch's op, if its result agrees with ours on the sample; else the row says why not."""
    row["peer"] = {"name": f"PyTorch {torch.__version__}", "seconds": None, "void": None}
    try:
        call = peer(torch, kernel.peer, kernel.shape, kernel.variant, "cuda" if machine.on_gpu else "cpu")
        theirs = call()[:SAMPLED].detach().to("cpu", torch.float32).numpy()
    except Exception as error:  # the peer's own, of whatever kind
        row["peer"]["void"] = first_line(error)
        return None
    row["peer"]["void"] = disagreement(ours, theirs, kernel.tolerance)
    return call if row["peer"]["void"] is None else None


def disagreement(ours: Array, theirs: Array, tolerance: float | None) -> str | None:
    """Why two results are not the same, as a share of the largest element; None if they are, or need not be."""
    if tolerance is None:
        return None
    a, b = np.asarray(ours, np.float64), np.asarray(theirs, np.float64)
    if a.shape != b.shape:
        return f"the results are of shape {a.shape} and {b.shape}"
    off = float(np.max(np.abs(a - b)) / max(float(np.max(np.abs(a))), np.finfo(np.float64).tiny))
    return None if off <= tolerance else f"the results differ by {off:.2g} of the largest, {tolerance:.2g} is allowed"


def _time(
    machine: Machine,
    replay: Callable[[], None],
    call: Callable[[], object] | None,
    row: dict[str, Any],
    deadline: Deadline,
    rounds: int,
) -> Spread:
    contenders = {"ours": _round(machine, replay)}
    if call is not None:
        contenders["theirs"] = _round(machine, call)
    found = in_turns(contenders, rounds, deadline)
    if "ours" in found.failed:
        raise RuntimeError(found.failed["ours"])
    if call is not None and "theirs" in found.seconds:
        row["peer"]["seconds"] = spread(found.seconds["theirs"]).to_json()
        if all(found.seconds["ours"]):
            row["ratio"] = ratios(found.seconds["ours"], found.seconds["theirs"]).to_json()
    elif call is not None:
        row["peer"]["void"] = found.failed["theirs"]
    return spread(found.seconds["ours"])


def _round(machine: Machine, work: Callable[[], object]) -> Callable[[], float]:
    """Seconds of one call, measured over as many as last a while; a few before are not measured."""
    machine.seconds(work)
    times = repetitions(machine.seconds(work), ROUND, 3, 1000)

    def several() -> None:
        for _ in range(times):
            work()

    return lambda: machine.seconds(several) / times


def _touched(plan: Plan) -> int:
    """Bytes of all arrays that the launches read or write, each once."""
    arrays = {id(a): int(a.nbytes) for launch in plan.launches for a in (*launch.inputs, *launch.outputs)}
    return sum(arrays.values())
