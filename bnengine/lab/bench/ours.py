"""This engine's training steps as a contender: op by op, replayed launch by launch, or as one graph or native call."""

import tracemalloc
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from ..._typing import Array
from ...data import ArraySource, Batch, groups
from ...errors import InputError
from ...losses import SoftmaxCrossEntropy
from ...network.precision import PrecisionName
from ...optim.optimizers import Adam
from ...runtime.plan import name_of
from ...training.replaying import Graph
from ...training.resident import Resident
from ...training.step import Step
from .machine import Machine, Mode
from .workloads import LEARNING_RATE, Data, Workload

CUPY = ("copied", "filled")  # launches that CuPy's own kernels do
SCHEDULED = 1 << 16  # steps whose learning rates are uploaded at once: more than are measured


class Ours:
    """A network with its training step: `run` goes through the data again and again in the orders that were given.

    On a GPU the data lie there, and a launch of the step gathers its rows; so it does in replays on a CPU. Op by op,
    batches are taken from NumPy arrays there. `at_once`: as many steps in one native call as `Trainer.fit` does.
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
        self.at_once = at_once
        self.machine, self.workload, self.data, self.precision, self.mode = machine, workload, data, precision, mode
        self.name, self._before = f"bnengine {mode}", machine.held_bytes()
        self.network = workload.network(machine.backend, precision)
        graph: Graph = mode == "graph" or (False if machine.on_gpu else "auto")  # on a CPU a replay is one native call
        self.step = Step(self.network, Adam(), SoftmaxCrossEntropy(), replay=mode != "eager", graph=graph)
        gathers = machine.on_gpu or mode == "replayed"
        self.resident = Resident(ArraySource(data.x, data.y), self.step.inputs) if gathers else None
        self.groups = [[rows] for rows in groups(workload.rows, workload.batch)]
        self.weights, self.state = self.network.state_dict(), self.step.state_dict()
        self.start()

    def prepare(self) -> None:
        """Compile, record and capture whatever there is to; then begin anew. InputError where nothing is replayed."""
        self.run(3)
        if self.mode != "eager":
            for how in self.step.modes():
                if how.how == "op by op":
                    raise InputError(f"bench: steps run op by op: {how.why}")
        self.start()

    def start(self, weights: Mapping[str, np.ndarray] | None = None) -> None:
        """The initial weights, or others, and the first batch."""
        self.network.load_state_dict(self.weights if weights is None else weights)
        self.step.load_state_dict(self.state)
        self.step.schedule([LEARNING_RATE] * SCHEDULED)
        self.at = 0

    def run(self, steps: int) -> None:
        """So many steps; nothing is waited for."""
        end = self.at + steps
        while self.at < end:
            done, (epoch, i) = 1, divmod(self.at, self.workload.batches)
            if self.resident is None:
                rows = self._order(epoch)[self.groups[i][0]]
                self.step([Batch(self.data.x[rows], self.data.y[rows], None, rows)])
            else:
                if i == 0:
                    self.resident.start(self._order(epoch), self.groups)
                done = self.step.next(self.resident, end - self.at if self.at_once else 1)
            self.at += done

    def _order(self, epoch: int) -> Array:
        return self.data.orders[epoch % len(self.data.orders)]

    def loss(self) -> float:
        """The loss of the last step, which is waited for."""
        return self.step.report().loss

    @property
    def launches(self) -> dict[str, int] | None:
        """Launches of a step by whose kernels they are; None where no step is recorded."""
        plans = [plan for plan in self.step.plans.values() if plan.launches and not plan.reasons]
        return dict(Counter(owner(launch.kernel) for launch in plans[0].launches)) if plans else None

    def peak_bytes(self) -> int | None:
        """On a GPU, what this training holds, its data included; on a CPU, what one step allocates on top, at most."""
        held = self.machine.held_bytes()
        if held is not None and self._before is not None:
            return held - self._before
        tracemalloc.start()
        try:
            self.run(1)
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()


def owner(kernel: Callable[..., Any]) -> str:
    """Whose kernel it is: our own, cublasLt's, or CuPy's."""
    return "CuPy" if name_of(kernel) in CUPY else str(getattr(kernel, "library", "bnengine"))
