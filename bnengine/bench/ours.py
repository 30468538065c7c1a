"""This engine's training steps as a contender: op by op, replayed launch by launch, or replayed as one graph."""

import tracemalloc
from collections import Counter
from collections.abc import Callable
from typing import Any, Literal

import numpy as np

from ..data import Batch
from ..errors import InputError
from ..losses import SoftmaxCrossEntropy
from ..optimizers import Adam
from ..training.step import Step
from .machine import Machine
from .workloads import LEARNING_RATE, UNIT, Data, Workload

Mode = Literal["eager", "replayed", "graph"]
SCHEDULED = 4096  # steps whose learning rates are uploaded at once: more than are measured


class Ours:
    """A network with its training step: `run` goes through the data again and again in the orders that were given."""

    def __init__(
        self,
        machine: Machine,
        workload: Workload,
        data: Data,
        *,
        precision: str = "highest",
        mode: Mode = "eager",
        perturbed: bool = False,
    ) -> None:
        self.machine, self.workload, self.data, self.precision, self.mode = machine, workload, data, precision, mode
        self.name = "bnengine" if machine.backend.name != "cupy" else f"bnengine {mode}"
        self.network = workload.network(machine.backend, precision)
        if perturbed:
            self.network.load_state_dict(roundings_apart(self.network.state_dict(), UNIT[precision]))
        self.step = Step(self.network, Adam(), SoftmaxCrossEntropy(), replay=mode != "eager")
        self.weights, self.state = self.network.state_dict(), self.step.state_dict()
        self.start()

    def prepare(self) -> None:
        """Compile, record and capture whatever there is to; then begin anew."""
        self.run(3)
        self.start()

    def start(self) -> None:
        """The initial weights and the first batch."""
        self.network.load_state_dict(self.weights)
        self.step.load_state_dict(self.state)
        self.step.schedule([LEARNING_RATE] * SCHEDULED)
        self.at = 0

    def run(self, steps: int) -> None:
        """So many steps; nothing is waited for."""
        for _ in range(steps):
            self.step([self._batch()])
            self.at += 1

    def _batch(self) -> Batch:
        epoch, i = divmod(self.at, self.workload.batches)
        m, orders = self.workload.batch, self.data.orders
        rows = orders[epoch % len(orders), i * m : (i + 1) * m]
        return Batch(self.data.x[rows], self.data.y[rows], None, rows)

    def loss(self) -> float:
        """The loss of the last step, which is waited for."""
        return self.step.report().loss

    @property
    def launches(self) -> dict[str, int] | None:
        """Launches of a step by whose kernels they are; None where no step is recorded."""
        plans = [plan for plan in self.step.plans.values() if plan.launches and not plan.reasons]
        return dict(Counter(owner(launch.kernel) for launch in plans[0].launches)) if plans else None

    def peak_bytes(self) -> int | None:
        """What NumPy and Python allocate during a step, at most; the arrays that stay are not in it."""
        if self.machine.on_gpu:
            return None
        tracemalloc.start()
        try:
            self.run(1)
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()


def owner(kernel: Callable[..., Any]) -> str:
    """Whose kernel it is: our own, cublasLt's, or CuPy's."""
    name = str(getattr(kernel, "__name__", ""))
    if name.startswith("bnengine::"):
        return "bnengine"
    return "cublasLt" if name.startswith("C (") else "CuPy"


def roundings_apart(state: dict[str, np.ndarray], unit: float) -> dict[str, np.ndarray]:
    """The same weights, each larger or smaller by two units of rounding: what another order of sums may do to them."""
    rng = np.random.default_rng(0)
    moved = {}
    for name, array in state.items():
        signs = rng.integers(0, 2, array.shape) * 2 - 1
        is_weight = name.endswith(".W")
        moved[name] = (array * (1 + 2 * unit * signs)).astype(array.dtype) if is_weight else array
    return moved


def check_mode(machine: Machine, mode: Mode) -> None:
    """InputError where steps cannot be replayed."""
    if mode != "eager" and not machine.on_gpu:
        raise InputError(f"bench: {machine.backend.name} has no fused versions whose launches could be replayed")
