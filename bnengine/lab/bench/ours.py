"""bnengine as a contender: training steps, predictions, single ops, and the products of a step alone."""

from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from ... import fused, ops
from ..._typing import Array
from ...data import ArraySource, Batch, groups
from ...errors import InputError
from ...fused import threads
from ...losses import SoftmaxCrossEntropy
from ...network.precision import PrecisionName
from ...optim.optimizers import Adam
from ...runtime.memory import Arena
from ...runtime.plan import CannotReplay, Plan, name_of
from ...training.replaying import Graph
from ...training.resident import Resident
from ...training.step import Step
from .agreement import MOVED, MOVES, bounds, losses, losses_from_here, moved
from .cases import PRODUCTS, REFERENCE, mode_of
from .machine import Machine, Mode
from .subjects import Subject, op_of, repeated, sampled, sampled_rows
from .workloads import LEARNING_RATE, Data, Workload

CUPY = ("copied", "filled")  # launches of CuPy's own kernels
SCHEDULED = 1 << 16  # steps whose learning rates are uploaded at once: more than are measured


class Ours:
    """A network and its training step, op by op ("eager"), replayed, or replayed as one graph.

    On a GPU, and in replays on a CPU, a launch of the step gathers the batch's rows; op by op on a CPU, batches are
    taken from NumPy arrays. With `at_once`, one native call makes as many steps as in `Trainer.fit`.
    """

    def __init__(
        self,
        machine: Machine,
        workload: Workload,
        data: Data,
        *,
        precision: PrecisionName = "highest",
        mode: Mode = "eager",
        at_once: bool = False,
    ) -> None:
        self.machine, self.workload, self.data, self.mode, self.at_once = machine, workload, data, mode, at_once
        self._before = machine.held_bytes()
        self.network = workload.network(machine.backend, precision)
        graph: Graph = mode == "graph" or (False if machine.on_gpu else "auto")  # on a CPU a replay is one native call
        self.step = Step(self.network, Adam(), SoftmaxCrossEntropy(), replay=mode != "eager", graph=graph)
        gathers = machine.on_gpu or mode == "replayed"
        self.resident = Resident(ArraySource(data.x, data.y), self.step.inputs) if gathers else None
        self.groups = [[rows] for rows in groups(workload.rows, workload.batch)]
        self.weights, self.state = self.network.state_dict(), self.step.state_dict()
        self.start()

    def prepare(self) -> None:
        """Compile, record and capture; then start again. InputError where the step cannot be replayed."""
        self.run(3)
        if self.mode != "eager":
            for how in self.step.modes():
                if how.how == "op by op":
                    raise InputError(f"bench: steps run op by op: {how.why}")
        self.start()

    def start(self, weights: Mapping[str, np.ndarray] | None = None) -> None:
        """Go back to the initial weights, or to `weights`, and to the first batch."""
        self.network.load_state_dict(self.weights if weights is None else weights)
        self.step.load_state_dict(self.state)
        self.step.schedule([LEARNING_RATE] * SCHEDULED)
        self.at = 0

    def run(self, steps: int) -> None:
        """Run steps, epoch after epoch, without waiting for the device."""
        end = self.at + steps
        while self.at < end:
            done, (epoch, i) = 1, divmod(self.at, self.workload.batches)
            order = self.data.orders[epoch % len(self.data.orders)]
            if self.resident is None:
                rows = order[self.groups[i][0]]
                self.step([Batch(self.data.x[rows], self.data.y[rows], None, rows)])
            else:
                if i == 0:
                    self.resident.start(order, self.groups)
                done = self.step.next(self.resident, end - self.at if self.at_once else 1)
            self.at += done

    def loss(self) -> float:
        """Wait for the last step and return its loss."""
        return self.step.report().loss

    def facts(self) -> dict[str, Any]:
        """Launches of a step by the library of their kernels, and on a GPU the bytes this training holds."""
        plans = [plan for plan in self.step.plans.values() if plan.launches and not plan.reasons]
        held = self.machine.held_bytes()
        return {
            "launches_by": dict(Counter(owner(launch.kernel) for launch in plans[0].launches)) if plans else None,
            "peak_bytes": None if held is None or self._before is None else held - self._before,
        }


def reference(ours: Ours, precision: str) -> tuple[list[float], list[float]]:
    """Return our losses and the bounds within which those of others must be."""
    base, repeated = losses(ours), []
    for seed in range(MOVES):
        ours.start(moved(ours.weights, MOVED[precision], seed))
        repeated.append(losses_from_here(ours))
    return base, bounds(base, repeated)


def owner(kernel: Callable[..., Any]) -> str:
    """Return whose kernel it is: bnengine's, cublasLt's or CuPy's."""
    return "CuPy" if name_of(kernel) in CUPY else str(getattr(kernel, "library", "bnengine"))


def make(role: str, kind: str, given: dict[str, Any], machine: Machine, bounded: bool) -> Subject:
    """Make what this role runs of a case; `bounded`: the answer of a training has the bounds for others' losses too.

    Raises:
        BackendError: native kernels are needed and missing.
    """
    if not machine.on_gpu and mode_of(role) != "eager":
        fused.native().library()
    if role == PRODUCTS:
        subject = _products(Workload.from_json(given), machine, backward=kind != "prediction")
    elif kind in ("kernel", "product"):
        subject = _op(role, given, machine)
    elif kind == "prediction":
        subject = _prediction(Workload.from_json(given), machine)
    else:
        subject = _training(role, kind, given, machine, bounded)
    if not machine.on_gpu and fused.native().available() is None:
        subject.answer.update(isa=fused.native().isa(), threads=threads.get())
    return subject


def _training(role: str, kind: str, given: dict[str, Any], machine: Machine, bounded: bool) -> Subject:
    workload, precision = Workload.from_json(given), given.get("precision", "highest")
    options = {"mode": mode_of(role), "precision": precision, "at_once": kind == "steps"}
    ours = Ours(machine, workload, workload.data(), **options)
    ours.prepare()
    facts = ours.facts()
    ours.start()
    base, allowed = reference(ours, precision) if bounded else (losses(ours), None)
    ours.start()
    return Subject(ours.run, {"losses": base, "allowed": allowed, **facts})


def _prediction(workload: Workload, machine: Machine) -> Subject:
    network, x = workload.network(machine.backend), workload.unseen_rows()
    network.load_state_dict(workload.trained_weights())

    def call() -> Array:
        return network.predict(x, batch_size=workload.batch)

    return Subject(repeated(call), {"sample": sampled(call())})


def _op(role: str, given: dict[str, Any], machine: Machine) -> Subject:
    """An op as recorded launches, or as its reference."""
    op, shape, dtype = op_of(given)
    arrays = op.arrays(
        shape,
        lambda shape, seed: machine.random(shape, dtype if len(shape) > 1 else "float32", seed),
        lambda array: machine.backend.asarray(array, copy=True),
    )
    if role == REFERENCE:
        run = Arena("reference").run
        return Subject(repeated(lambda: op.ours(run, *arrays)), {"sample": sampled(op.ours(run, *arrays))})
    plan, result = recorded(arrays, lambda run: op.ours(run, *arrays))
    sample = sampled(machine.backend.to_numpy(result[: sampled_rows(result.shape), ...], copy=True))
    if op.only_result:
        plan.launches = [each for each in plan.launches if any(np.shares_memory(out, result) for out in each.outputs)]
    touched = {id(a): int(a.nbytes) for launch in plan.launches for a in (*launch.inputs, *launch.outputs)}
    facts = {"launches": len(plan.launches), "working_set": sum(touched.values())}
    return Subject(repeated(replay_of(machine, plan)), {"sample": sample, **facts})


def _products(workload: Workload, machine: Machine, *, backward: bool) -> Subject:
    """All products of a step or a prediction and nothing else: the lower bound of its time."""
    rng = np.random.default_rng(0)
    arrays = [
        [rng.standard_normal(shape, dtype=np.float32) for shape in ((workload.batch, n), (n, k), (workload.batch, k))]
        for n, k in workload.pairs
    ]

    def call(run: Any) -> None:
        for x, W, _ in arrays:
            run(ops.affine, x, W)
        for i, (x, W, dy) in enumerate(arrays if backward else []):
            run(ops.affine_backward, dy, x, W, dy, input_gradient=i > 0, bias_gradient=False)

    plan, _ = recorded([array for layer in arrays for array in layer], call)
    return Subject(repeated(replay_of(machine, plan)), {})


def recorded(owned: list[Array], call: Callable[[Any], Any]) -> tuple[Plan, Any]:
    """Record the launches of a call on fused versions; return them and its result."""
    memory = Arena("fused")
    with memory.recording(owned) as plan:
        memory.begin()
        result = call(memory.run)
    return plan, result


def replay_of(machine: Machine, plan: Plan) -> Callable[[], object]:
    """Return what replays a plan: its launches on a GPU, one native call on a CPU. RuntimeError where it cannot."""
    if machine.on_gpu:
        return plan.replay
    if plan.reasons:
        raise RuntimeError(f"not recorded: {'; '.join(each.op or each.outside for each in plan.reasons)}")
    try:
        replay: Callable[[], object] = fused.backend_feature("numpy", "replayer")(plan)
    except CannotReplay as reason:
        raise RuntimeError(f"not one native call: {reason}") from reason
    return replay
