"""The state of a training step: every array that steps read and change, saved and loaded by name."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np

from .. import ops
from .._typing import Array
from ..errors import InputError
from ..losses import LossFunction
from ..network.sequential import Sequential
from ..ops.update import IN_A_ROW, LONGEST, ROW, SKIPPED, STEPS
from ..optim.optimizers import Optimizer
from ..runtime.flat import Flat, Parameter
from ..runtime.memory import Arena
from ..validation import choice, number
from .scaling import Given, Scaling, get_loss_scale
from .table import Table

AVERAGED: tuple[Literal["averaged", "recomputed"], ...] = ("averaged", "recomputed")


@dataclass(frozen=True)
class Average:
    """An exponential average of the weights: a <- decay a + (1 - decay) w after each successful step.

    Polyak and Juditsky (1992).

    Args:
        decay: The share of the old average that is kept.
        statistics: "averaged" with the same decay, or "recomputed" from the training data for the averaged weights
            before each evaluation (what averaged weights really see; one more pass).
    """

    decay: float = 0.999
    statistics: Literal["averaged", "recomputed"] = "averaged"

    def __post_init__(self) -> None:
        decay = number("Average", "decay", self.decay, least=0, below=1, cure="0.999 is usual.")
        object.__setattr__(self, "decay", decay)
        object.__setattr__(self, "statistics", choice("Average", "statistics", self.statistics, AVERAGED))


class Report(NamedTuple):
    """What the host reads of the last step: loss and gradient norm (before clipping), and the counters."""

    loss: float
    norm: float
    ok: bool
    steps: int
    skipped: int
    skipped_in_a_row: int
    longest_skip: int
    loss_scale: float | None = None


class Totals(NamedTuple):
    """What the host reads of an epoch: mean loss and share of rows classified right (None: no classes)."""

    loss: float
    accuracy: float | None
    rows: int


class StepState:
    """What a training step reads and changes, next to the network's parameters and running statistics.

    Attributes:
        gradients: One flat buffer, as the parameters have.
        proposed, pending: Statistics of the batch, (micro-batches, 3, channels), and a view for each micro-batch.
        value, correct: The step's loss and how many rows it classifies right, shape (1,).
        verdict: What `ops.check_step` says of the step: ok, the gradients' norm, the factor that clips them.
        slots: The optimizer's state by name; None where this variant does without.
        table: The scalars of the steps to come, such as the learning rate.
        averaged: Averages of parameters and statistics, if an `Average` is kept.
        counters: (steps, row of the table, skipped, skipped in a row, longest such run).
        sums: What `totals` divides: sums over the epoch's successful steps.
        scaling: The loss scale.
    """

    def __init__(
        self,
        network: Sequential,
        optimizer: Optimizer,
        loss: LossFunction,
        *,
        clip_norm: float | None = None,
        statistics: Literal["merged", "per_micro_batch"] = "merged",
        average: Average | None = None,
        loss_scale: Given = "auto",
        memory: Arena,
    ) -> None:
        if clip_norm is not None:
            clip_norm = number("Step", "clip_norm", clip_norm, above=0, cure="None does not clip.")
        statistics = choice("Step", "statistics", statistics, ("merged", "per_micro_batch"))
        self.network, self.optimizer, self.loss, self.memory = network, optimizer, loss, memory
        self.clip_norm, self.statistics, self.average = clip_norm, statistics, average
        backend = self.backend = network.backend
        xp, device = backend.xp, backend.device
        self.scaling = Scaling(get_loss_scale(loss_scale, network.precision), network)
        self.gradients = network.gradients()
        self.propose(1)
        self.slots: dict[str, Flat | None] = {
            name: network.parameters.like() if present else None for name, present in optimizer.slots().items()
        }
        self.counters = xp.zeros((5,), dtype=xp.int64, device=device)
        self.sums = xp.zeros((4,), dtype=xp.float64, device=device)
        self.correct = xp.zeros((1,), dtype=xp.float64, device=device)
        self.value = xp.zeros((1,), dtype=backend.dtype(network.dtype), device=device)
        self.verdict = ops.check_step(self.value, self.gradients.array, self.pending[0].array)
        constants = loss.constants(network.outputs or 1)
        self.constants = None if constants is None else backend.asarray(constants, network.dtype)
        self.averaged = self._copies() if average else None
        self.table = Table(backend, network.dtype, self.counters)
        self.schedule([0.0])
        self.gaps = False  # whether a step left gradients or pending statistics unwritten (frozen, or no batch)

    def propose(self, count: int) -> None:
        """Make room for the pending statistics of so many micro-batches, in one buffer: (count, 3, C)."""
        statistics, xp = self.network.statistics, self.backend.xp
        self.proposed = xp.zeros((count, *statistics.array.shape), dtype=xp.float64, device=self.backend.device)
        self.pending = [statistics.over(self.proposed[i, ...]) for i in range(count)]

    def _copies(self) -> tuple[Flat, Flat]:
        network, xp = self.network, self.backend.xp
        parameters, statistics = network.parameters, network.statistics
        return (
            parameters.over(xp.asarray(parameters.array, copy=True)),
            statistics.over(xp.asarray(statistics.array, copy=True)),
        )

    def clear_gaps(self) -> None:
        """Zero gradients and pending statistics that the last plan wrote and the next one does not."""
        if self.gaps:
            self.gradients.array[...] = 0
            self.proposed[...] = 0

    def schedule(self, rates: Sequence[float]) -> None:
        """Set the learning rates of the next successful steps; after the last one it stays. Reads the step count."""
        self.table.schedule(rates, self.optimizer)

    def settings(self) -> tuple[Any, ...]:
        """Everything that a recorded step holds as a constant, but for shapes."""
        network = self.network
        options = self.clip_norm, self.optimizer, self.loss, self.average, self.statistics, self.scaling.settings
        return (*options, network.seed, network.freezes)

    def frozen(self) -> tuple[tuple[int, int], ...]:
        """Ranges of the flat buffers that an update leaves alone."""
        parameters = self.network.parameters
        return parameters.ranges(h for h in parameters if isinstance(h, Parameter) and h.frozen)

    def arrays(self) -> list[Array]:
        """The memory that outlives a step and that a replay reads."""
        network = self.network
        flats = [flat for flat in (*self.slots.values(), *(self.averaged or ())) if flat is not None]
        held = [self.counters, self.sums, self.correct, self.value, *self.verdict[:3], *self.scaling.memory()]
        held += [self.table.array, self.proposed]
        buffers = [network.parameters, network.statistics, self.gradients, *flats]
        buffers += [] if network.copy16 is None else [network.copy16]
        rules = [a for a in (*network.commit_rules, self.constants) if a is not None]
        return [*held, *rules, *(flat.array for flat in buffers)]

    # -- what the host reads and resets: each read waits for the device

    def start_epoch(self) -> None:
        """Forget the sums of the epoch before."""
        self.sums[...] = 0

    def forget_skips(self) -> None:
        """Begin a new count of the steps skipped in a row."""
        self.counters[IN_A_ROW:] = 0
        self.scaling.forget_skips()

    def totals(self) -> Totals:
        """Means over the epoch's successful steps."""
        loss, weight, correct, rows = (float(s) for s in self.backend.to_numpy(self.sums))
        accuracy = correct / rows if rows and self.loss.task == "classification" else None
        return Totals(loss / weight if weight else float("nan"), accuracy, int(rows))

    def report(self) -> Report:
        """Loss, norm and counters of the last step."""
        read = self.backend.to_numpy
        counters = read(self.counters)
        loss, norm, ok = (read(a)[0] for a in (self.value, self.verdict.norm, self.verdict.ok))
        steps, skipped, in_a_row, longest = (int(counters[i]) for i in (STEPS, SKIPPED, IN_A_ROW, LONGEST))
        scale, in_a_row, longest = self.scaling.read() or (None, in_a_row, longest)
        return Report(float(loss), float(norm), bool(ok), steps, skipped, in_a_row, longest, scale)

    # -- save and load

    def state_dict(self) -> dict[str, np.ndarray]:
        """Optimizer state, counters and averages as named NumPy arrays: what resuming needs next to the network."""
        network, read = self.network, self.backend.to_numpy
        state = {name: read(array, copy=True) for name, (array, _) in self._small().items()}
        state["counters"][ROW] = 0  # a place in the table of rates, which `schedule` gives anew
        for slot, flat in self.slots.items():
            if flat is not None:
                named = network.export(flat, network.statistics)
                state.update({f"optimizer.{slot}.{name}": named[name] for name in network.named_parameters()})
        if self.averaged is not None:
            state.update({f"average.{name}": array for name, array in network.export(*self.averaged).items()})
        return state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over what `state_dict` gave, all or nothing.

        Raises:
            InputError: An entry is missing, unknown or has another shape.
        """
        network, asarray = self.network, self.backend.asarray
        expected = self.state_dict()
        if wrong := sorted(expected.keys() ^ state.keys()):
            raise InputError(
                f"Step.load_state_dict: {', '.join(wrong[:4])} missing or unknown; the optimizer must be the one "
                "that was saved, and so must the loss scale"
            )
        for name, array in expected.items():
            if np.shape(state[name]) != array.shape:
                raise InputError(
                    f"Step.load_state_dict: {name} has shape {np.shape(state[name])}; needed is {array.shape}"
                )
        new = [(array, asarray(state[name], dtype)) for name, (array, dtype) in self._small().items()]
        handles = [(n, h) for n, h in network.named_handles().items() if isinstance(h, Parameter)]
        for slot, flat in self.slots.items():
            if flat is not None:
                new += [(flat[h], asarray(state[f"optimizer.{slot}.{n}"], network.dtype)) for n, h in handles]
        if self.averaged is not None:
            averaged = {k.removeprefix("average."): v for k, v in state.items() if k.startswith("average.")}
            network.import_into(averaged, *self.averaged)
        for view, array in new:
            view[...] = array
        self.table.renew()

    def _small(self) -> dict[str, tuple[Array, str]]:
        """Arrays that are saved as they lie, and the dtype of each."""
        held = {"counters": (self.counters, "int64"), "sums": (self.sums, "float64")}
        held["norm"] = (self.verdict.norm, "float64")
        if self.scaling.array is not None:
            held["scaling"] = (self.scaling.array, self.network.dtype)
        return held
