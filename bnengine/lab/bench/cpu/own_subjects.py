"""This engine as a contender: native kernels in one call a step, references, and the products of a step alone."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from .... import fused, ops
from ...._typing import Array
from ....arrays.backend import get_backend
from ....fused import threads
from ....ops import onto
from ....runtime.memory import Arena
from ....runtime.plan import Launch, Plan
from ..agreement import losses
from ..kernels import TOLERANCES, adam, batch_norm, softmax
from ..machine import Machine, Mode
from ..ours import Ours
from ..step_rows import reference
from ..workloads import Workload
from .cases import ONE_THREAD, OURS, PRODUCTS, REFERENCE
from .inputs import data_of, rows_of, sampled, weights_of, workload_of
from .worker import Subject

OPS = {"batch_norm": batch_norm, "adam": adam, "softmax": softmax}
ABOUT = {"tolerance": TOLERANCES["float32"]}


def make(role: str, kind: str, given: dict[str, Any], folder: Path) -> Subject:
    """What this role runs of a case. BackendError where native kernels are asked for and there are none."""
    if role != REFERENCE:
        fused.native().library()
    if role == PRODUCTS:
        return products(workload_of(given), backward=kind != "prediction")
    if kind == "kernel":
        return kernel(role, given, folder)
    if kind == "product":
        return product(role, given, folder)
    if kind == "prediction":
        return prediction(role, workload_of(given), folder)
    alone = role == REFERENCE and fused.native().available() is not None
    compared = alone or role in (OURS, ONE_THREAD)
    return step(role, workload_of(given), folder, compared=compared, at_once=kind == "steps")


def about() -> dict[str, Any]:
    """The instruction set and the threads of the native kernels."""
    native = fused.native()
    return {} if native.available() else {"isa": native.isa(), "threads": threads.get()}


def machine() -> Machine:
    return Machine(get_backend("numpy"))


def step(role: str, workload: Workload, folder: Path, *, compared: bool, at_once: bool = False) -> Subject:
    """Training steps. The answer: their losses; where others are `compared` with these, what they may be off by."""
    mode: Mode = "eager" if role == REFERENCE else "replayed"
    ours = Ours(machine(), workload, data_of(folder), mode=mode, at_once=at_once)
    ours.prepare()
    base, allowed = reference(ours, "highest") if compared else (losses(ours), None)
    ours.start()
    return Subject(ours.run, {"losses": base, "allowed": allowed, **about()})


def prediction(role: str, workload: Workload, folder: Path) -> Subject:
    """`Sequential.predict`, as a user calls it."""
    network, x = workload.network(get_backend("numpy")), rows_of(folder)
    network.load_state_dict(weights_of(folder))

    def call() -> Array:
        return network.predict(x, batch_size=workload.batch)

    return Subject(repeated(call), {**sampled(call(), folder, role), **ABOUT, **about()})


def kernel(role: str, given: dict[str, Any], folder: Path) -> Subject:
    """A single op: recorded and replayed in one native call, or its reference."""
    owned, call = OPS[given["op"]](machine(), tuple(given["shape"]), "float32")
    if role == REFERENCE:
        memory = Arena("reference")
        return Subject(repeated(lambda: call(memory)), {**sampled(call(memory), folder, role), **ABOUT})
    replay, result = recorded(owned, call)
    return Subject(repeated(replay), {**sampled(result, folder, role), **ABOUT, **about()})


def product(role: str, given: dict[str, Any], folder: Path) -> Subject:
    """One product as a training step launches it."""
    a, b, c = factors(given)
    other = np.zeros_like(c)  # of the same shape as the result: the weights, or the input, whose values do not matter

    def call(memory: Arena) -> Array:
        run = memory.run
        if given["product"] == "NN":
            return run(ops.affine, a, b, into=onto(out=c))
        if given["product"] == "TN":
            options = {"input_gradient": False, "bias_gradient": False}
            return run(ops.affine_backward, b, a, other, b, into=onto(dW=c), **options).dW
        return run(ops.affine_backward, a, other, b, a, bias_gradient=False, into=onto(dx=c)).dx

    replay, result = recorded([a, b, c, other], call, only=c)
    return Subject(repeated(replay), {**sampled(result, folder, role), **ABOUT, **about()})


def factors(given: dict[str, Any]) -> tuple[Array, Array, Array]:
    """Both factors as they lie in memory, the rows and columns of NT's second and TN's first changed; the result."""
    m, n, k = given["m"], given["n"], given["k"]
    rng = np.random.default_rng(0)
    a = rng.standard_normal((k, m) if given["product"] == "TN" else (m, k), dtype=np.float32)
    b = rng.standard_normal((n, k) if given["product"] == "NT" else (k, n), dtype=np.float32)
    return a, b, np.zeros((m, n), np.float32)


def products(workload: Workload, *, backward: bool) -> Subject:
    """All products of a step, or of a prediction, and nothing else: what a step cannot be quicker than."""
    rng = np.random.default_rng(0)
    arrays = [
        [rng.standard_normal(shape, dtype=np.float32) for shape in ((workload.batch, n), (n, k), (workload.batch, k))]
        for n, k in workload.pairs
    ]

    def call(memory: Arena) -> Array:
        for x, W, _ in arrays:
            memory.run(ops.affine, x, W)
        for i, (x, W, dy) in enumerate(arrays if backward else []):
            memory.run(ops.affine_backward, dy, x, W, dy, input_gradient=i > 0, bias_gradient=False)
        return arrays[0][0]

    replay, _ = recorded([array for layer in arrays for array in layer], call)
    return Subject(repeated(replay), about())


def recorded(
    owned: list[Array], call: Callable[[Arena], Array], only: Array | None = None
) -> tuple[Callable[[], object], Array]:
    """What replays the launches of a call as one native call, and what the call gave.

    `only`: an array; launches that write others are left out.
    """
    memory = Arena("fused")
    with memory.recording(owned) as plan:
        memory.begin()
        result = np.array(call(memory))
    if only is not None:
        plan.launches = [launch for launch in plan.launches if _writes(launch, only)]
    return native(plan), result


def _writes(launch: Launch, array: Array) -> bool:
    return any(np.shares_memory(out, array) for out in launch.outputs)


def native(plan: Plan) -> Callable[[], object]:
    """The plan in one call; RuntimeError where that cannot be."""
    if plan.reasons:
        raise RuntimeError(f"not recorded: {'; '.join(one.op or one.outside for one in plan.reasons)}")
    replay = fused.backend_feature("numpy", "replayer")(plan)
    if isinstance(replay, str):
        raise RuntimeError(f"not one native call: {replay}")
    found: Callable[[], object] = replay
    return found


def repeated(call: Callable[[], object]) -> Callable[[int], None]:
    """n calls."""

    def run(n: int) -> None:
        for _ in range(n):
            call()

    return run
