"""bnengine as a contender: training steps, predictions, single ops, and the products of a step alone."""

from collections import Counter
from collections.abc import Callable
from math import prod
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
from .agreement import MOVED, MOVES, bounds, moved
from .cases import MODES, PRODUCTS, REFERENCE, Mode
from .machine import Machine
from .ops import OPS, block
from .subjects import SAMPLED, Peer, Subject, Training, repeated
from .workloads import LEARNING_RATE, Data, Workload

CUPY = ("copied", "filled")  # launches of CuPy's own kernels
SCHEDULED = 1 << 16  # steps whose learning rates are uploaded at once: more than are measured


class Ours(Training):
    """A network and its training step, op by op ("eager"), replayed, or replayed as one graph.

    On a GPU, and in replays on a CPU, a launch of the step gathers the batch's rows; op by op on a CPU, batches are
    taken from NumPy arrays. With `at_once`, one native call makes as many steps as in `Trainer.fit`. `start` goes back
    to `weights`.

    Raises:
        InputError: the step cannot be replayed.
    """

    def __init__(
        self, machine: Machine, workload: Workload, data: Data, precision: PrecisionName = "highest",
        mode: Mode = "eager", at_once: bool = False,
    ) -> None:  # fmt: skip
        super().__init__(workload, data)
        self.at_once, held = at_once, machine.timing.held_bytes() if machine.timing else 0
        self.network = workload.network(machine.backend, precision)
        graph: Graph = mode == "graph" or (False if machine.on_gpu else "auto")  # on a CPU a replay is one native call
        self.step = Step(self.network, Adam(), SoftmaxCrossEntropy(), replay=mode != "eager", graph=graph)
        gathers = machine.on_gpu or mode == "replayed"
        self.resident = Resident(ArraySource(data.x, data.y), self.step.inputs) if gathers else None
        self.groups = [[rows] for rows in groups(workload.rows, workload.batch)]
        self.weights, self.state = self.network.state_dict(), self.step.state_dict()
        self.start()
        self.run(3)  # compile, record and capture
        for how in self.step.modes() if mode != "eager" else ():
            if how.how == "op by op":
                raise InputError(f"bench: steps run op by op: {how.why}")
        plans = [plan for plan in self.step.plans.values() if plan.launches and not plan.reasons]
        # Launches of a step by the library of their kernels, and on a GPU the bytes that this training holds.
        self.facts = {
            "launches_by": dict(Counter(owner(launch.kernel) for launch in plans[0].launches)) if plans else None,
            "peak_bytes": int(machine.timing.held_bytes()) - held if machine.timing else None,
        }
        self.start()

    def reset(self) -> None:
        self.network.load_state_dict(self.weights)
        self.step.load_state_dict(self.state)
        self.step.schedule([LEARNING_RATE] * SCHEDULED)

    def go(self, epoch: int, batch: int, most: int) -> int:
        order = self.data.orders[epoch]
        if self.resident is None:
            rows = order[self.groups[batch][0]]
            self.step([Batch(self.data.x[rows], self.data.y[rows], None, rows)])
            return 1
        if batch == 0:
            self.resident.start(order, self.groups)
        return self.step.next(self.resident, most if self.at_once else 1)

    def loss(self) -> float:
        return self.step.report().loss


def owner(kernel: Callable[..., Any]) -> str:
    """Return whose kernel it is: bnengine's, cublasLt's or CuPy's."""
    return "CuPy" if name_of(kernel) in CUPY else str(getattr(kernel, "library", "bnengine"))


class OurPeer(Peer):
    """bnengine in one of its roles. BackendError where native kernels are needed and missing."""

    def __init__(self, role: str, machine: Machine) -> None:
        super().__init__()
        self.role, self.machine, native = role, machine, fused.native()
        self.mode: Mode = "eager" if role == REFERENCE else MODES.get(role, "replayed")
        if not machine.on_gpu and self.mode != "eager":
            native.library()
        if not machine.on_gpu and native.available() is None:
            self.facts = {"isa": native.isa(), "threads": threads.get()}

    def subject(self, kind: str, given: dict[str, Any], bounded: bool) -> Subject:
        if self.role == PRODUCTS:
            return self.products(Workload.from_json(given), backward=kind != "prediction")
        return super().subject(kind, given, bounded)

    def training(self, workload: Workload, data: Data, precision: PrecisionName, at_once: bool) -> Ours:
        ours = Ours(self.machine, workload, data, precision, self.mode, at_once)
        self.facts |= ours.facts
        return ours

    def compared(self, training: Ours, precision: str) -> dict[str, Any]:
        base, initial, repeated = training.losses(), training.weights, []
        for seed in range(MOVES):
            training.weights = moved(initial, MOVED[precision], seed)
            repeated.append(training.losses())
        training.weights = initial
        return {"losses": base, "allowed": bounds(base, repeated)}

    def prediction(self, workload: Workload, rows: Array) -> Subject:
        network = workload.network(self.machine.backend)
        network.load_state_dict(workload.state(trained=True))
        return self.called(lambda: network.predict(rows, batch_size=workload.batch))

    def put(self, array: Array, dtype: str, shape: tuple[int, ...]) -> Array:
        backend = self.machine.backend
        block = backend.asarray(np.ravel(array), dtype)
        return backend.xp.reshape(backend.xp.concat([block] * -(-prod(shape) // array.size))[: prod(shape)], shape)

    def host(self, result: Array) -> Array:
        return self.machine.backend.to_numpy(result.reshape(-1)[:SAMPLED], copy=True)

    def op(self, op: str, arrays: list[Array]) -> Subject:
        """An op as recorded launches, or as its reference."""
        ours = OPS[op].ours
        if self.role == REFERENCE:
            run = Arena("reference").run
            return self.called(lambda: ours(run, *arrays))
        plan, result = recorded(arrays, lambda run: ours(run, *arrays))
        if OPS[op].only_result:
            plan.launches = [
                each for each in plan.launches if any(np.shares_memory(out, result) for out in each.outputs)
            ]
        touched = {id(a): int(a.nbytes) for launch in plan.launches for a in (*launch.inputs, *launch.outputs)}
        self.facts |= {"launches": len(plan.launches), "working_set": sum(touched.values())}
        return self.called(self.replay_of(plan), result)

    def products(self, workload: Workload, *, backward: bool) -> Subject:
        """All products of a step or a prediction and nothing else: the lower bound of its time."""
        m = workload.batch
        shapes = [((m, inputs), (inputs, outputs), (m, outputs)) for inputs, outputs in workload.pairs]
        arrays = [[np.resize(block(shape, seed), shape) for seed, shape in enumerate(layer)] for layer in shapes]

        def call(run: Any) -> None:
            for x, W, _ in arrays:
                run(ops.affine, x, W)
            for i, (x, W, dy) in enumerate(arrays if backward else []):
                run(ops.affine_backward, dy, x, W, dy, input_gradient=i > 0, bias_gradient=False)

        plan, _ = recorded([array for layer in arrays for array in layer], call)
        return Subject(repeated(self.replay_of(plan)), self.facts)

    def replay_of(self, plan: Plan) -> Callable[[], object]:
        """Return what replays a plan: its launches on a GPU, one native call on a CPU. RuntimeError where it cannot."""
        if self.machine.on_gpu:
            return plan.replay
        if plan.reasons:
            raise RuntimeError(f"not recorded: {'; '.join(each.op or each.outside for each in plan.reasons)}")
        try:
            replay: Callable[[], object] = fused.backend_feature("numpy", "replayer")(plan)
        except CannotReplay as reason:
            raise RuntimeError(f"not one native call: {reason}") from reason
        return replay


def recorded(owned: list[Array], call: Callable[[Any], Any]) -> tuple[Plan, Any]:
    """Record the launches of a call on fused versions; return them and its result."""
    memory = Arena("fused")
    with memory.recording(owned) as plan:
        memory.begin()
        result = call(memory.run)
    return plan, result
