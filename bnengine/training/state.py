"""StepState: every array that training steps read and change, saved and loaded as named NumPy arrays."""

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
from .scaling import LossScaleOption, Scaling, get_loss_scale
from .table import Table

AVERAGED: tuple[Literal["averaged", "recomputed"], ...] = ("averaged", "recomputed")


@dataclass(frozen=True)
class Average:
    """An exponential average of the weights: a <- decay a + (1 - decay) w after each successful step.

    Evaluation uses the averaged weights. Polyak and Juditsky (1992).

    Args:
        decay: the share of the old average that is kept, in [0, 1); 0.999 is usual.
        statistics: the running statistics of the averaged weights: "averaged" with the same decay, or "recomputed" from
            the training data after each epoch, which is exact and takes one more pass.

    Raises:
        InputError: a wrong argument.
    """

    decay: float = 0.999
    statistics: Literal["averaged", "recomputed"] = "averaged"

    def __post_init__(self) -> None:
        decay = number("Average", "decay", self.decay, least=0, below=1, cure="0.999 is usual.")
        object.__setattr__(self, "decay", decay)
        object.__setattr__(self, "statistics", choice("Average", "statistics", self.statistics, AVERAGED))


class Report(NamedTuple):
    """The last step, as read by the host.

    Attributes:
        loss, norm: of the last step; the norm is that of the gradients before clipping.
        ok: whether it changed the network.
        steps, skipped: counts of successful and of skipped steps.
        skipped_in_a_row, longest_skip: the present and the longest run of skipped steps.
        loss_scale: of the next step; None without one.
    """

    loss: float
    norm: float
    ok: bool
    steps: int
    skipped: int
    skipped_in_a_row: int
    longest_skip: int
    loss_scale: float | None = None


class Totals(NamedTuple):
    """An epoch, as read by the host: mean loss, share of correct rows (None without classes), number of rows."""

    loss: float
    accuracy: float | None
    rows: int


class StepState:
    """What a training step reads and changes, in addition to the network's parameters and running statistics.

    Args:
        network, optimizer, loss: of the training.
        clip_norm: scale gradients so that their global norm is at most this; None for never.
        statistics: merge those of the micro-batches exactly into one update ("merged"), or commit them one after the
            other ("per_micro_batch"), as other frameworks do.
        average: keep an average of the weights.
        loss_scale: a `LossScale`; "auto" for one in precision "float16", a number for a constant scale, None for none.
        memory: where outputs of ops are allocated.

    Attributes:
        gradients: one flat buffer, with the layout of the parameters.
        pending_array, pending: the batch's statistics, (micro-batches, 3, channels), and a view for each micro-batch.
        value, correct: the step's loss and its number of correctly classified rows, shape (1,).
        checked: what `ops.check_step` returned: ok, the gradients' norm, the factor that clips them.
        slots: the optimizer's state by name; None if this variant does not use it.
        table: the scalars of the next steps, such as learning rates.
        averaged: averages of parameters and statistics, if an `Average` is kept.
        counters: (steps, row of the table, skipped, skipped in a row, longest such run).
        sums: over the epoch's successful steps, for `totals`.
        scaling: the loss scale.
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
        loss_scale: LossScaleOption = "auto",
        memory: Arena,
    ) -> None:
        if clip_norm is not None:
            clip_norm = number("Step", "clip_norm", clip_norm, above=0, cure="Or pass None, to clip never.")
        statistics = choice("Step", "statistics", statistics, ("merged", "per_micro_batch"))
        self.network, self.optimizer, self.loss, self.memory = network, optimizer, loss, memory
        self.clip_norm, self.statistics, self.average = clip_norm, statistics, average
        backend = self.backend = network.backend
        xp, device = backend.xp, backend.device
        self.scaling = Scaling(get_loss_scale(loss_scale, network.precision), network)
        self.gradients = network.gradients()
        self.allocate_pending(1)
        self.slots: dict[str, Flat | None] = {
            name: network.parameters.like() if present else None for name, present in optimizer.slots().items()
        }
        self.counters = xp.zeros((5,), dtype=xp.int64, device=device)
        self.sums = xp.zeros((4,), dtype=xp.float64, device=device)
        self.correct = xp.zeros((1,), dtype=xp.float64, device=device)
        self.value = xp.zeros((1,), dtype=backend.dtype(network.dtype), device=device)
        self.checked = ops.check_step(self.value, self.gradients.array, self.pending[0].array)
        constants = loss.constants(network.outputs or 1)
        self.constants = None if constants is None else backend.asarray(constants, network.dtype)
        self.averaged = self._copies() if average else None
        self.table = Table(backend, network.dtype, self.counters)
        self.schedule([0.0])
        self.gaps = False  # whether a step left gradients or pending statistics unwritten (frozen, or no batch)

    def allocate_pending(self, count: int) -> None:
        """Allocate the pending statistics of `count` micro-batches, in one buffer: (count, 3, C)."""
        statistics, xp = self.network.statistics, self.backend.xp
        self.pending_array = xp.zeros((count, *statistics.array.shape), dtype=xp.float64, device=self.backend.device)
        self.pending = [statistics.over(self.pending_array[i, ...]) for i in range(count)]

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
            self.pending_array[...] = 0

    def schedule(self, rates: Sequence[float]) -> None:
        """Set the learning rates of the next successful steps; the last one stays. It reads the step count."""
        self.table.schedule(rates, self.optimizer)

    def settings(self) -> tuple[Any, ...]:
        """Return everything but shapes that a recorded step uses as a constant."""
        network = self.network
        options = self.clip_norm, self.optimizer, self.loss, self.average, self.statistics, self.scaling.settings
        return (*options, network.seed, network.freezes)

    def frozen(self) -> tuple[tuple[int, int], ...]:
        """Return the ranges of the flat buffers that an update does not change."""
        parameters = self.network.parameters
        return parameters.ranges(h for h in parameters if isinstance(h, Parameter) and h.frozen)

    def arrays(self) -> list[Array]:
        """Return the memory that outlives a step and that a replay reads."""
        network = self.network
        flats = [flat for flat in (*self.slots.values(), *(self.averaged or ())) if flat is not None]
        arrays = [self.counters, self.sums, self.correct, self.value, *self.checked[:3], *self.scaling.memory()]
        arrays += [self.table.array, self.pending_array]
        buffers = [network.parameters, network.statistics, self.gradients, *flats]
        buffers += [] if network.copy16 is None else [network.copy16]
        rules = [a for a in (*network.commit_rules, self.constants) if a is not None]
        return [*arrays, *rules, *(flat.array for flat in buffers)]

    # -- what the host reads and resets: each read waits for the device

    def start_epoch(self) -> None:
        """Reset the sums of the epoch."""
        self.sums[...] = 0

    def forget_skips(self) -> None:
        """Reset the count of steps skipped in a row."""
        self.counters[IN_A_ROW:] = 0
        self.scaling.forget_skips()

    def totals(self) -> Totals:
        """Read the means over the epoch's successful steps."""
        loss, weight, correct, rows = (float(s) for s in self.backend.to_numpy(self.sums))
        accuracy = correct / rows if rows and self.loss.task == "classification" else None
        return Totals(loss / weight if weight else float("nan"), accuracy, int(rows))

    def report(self) -> Report:
        """Read loss, norm and counters of the last step."""
        read = self.backend.to_numpy
        counters = read(self.counters)
        loss, norm, ok = (read(a)[0] for a in (self.value, self.checked.norm, self.checked.ok))
        steps, skipped, in_a_row, longest = (int(counters[i]) for i in (STEPS, SKIPPED, IN_A_ROW, LONGEST))
        scale, in_a_row, longest = self.scaling.read() or (None, in_a_row, longest)
        return Report(float(loss), float(norm), bool(ok), steps, skipped, in_a_row, longest, scale)

    # -- save and load

    def state_dict(self) -> dict[str, np.ndarray]:
        """Return optimizer state, counters and averages as named NumPy arrays, which resuming needs."""
        network, read = self.network, self.backend.to_numpy
        state = {name: read(array, copy=True) for name, (array, _) in self._small().items()}
        state["counters"][ROW] = 0  # an index of the table, which `schedule` fills again
        for slot, flat in self.slots.items():
            if flat is not None:
                named = network.export(flat, network.statistics)
                state.update({f"optimizer.{slot}.{name}": named[name] for name in network.named_parameters()})
        if self.averaged is not None:
            state.update({f"average.{name}": array for name, array in network.export(*self.averaged).items()})
        return state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Load what `state_dict` returned, all or nothing.

        Raises:
            InputError: an entry is missing, unknown or has another shape; nothing changes.
        """
        network, asarray = self.network, self.backend.asarray
        expected = self.state_dict()
        if wrong := sorted(expected.keys() ^ state.keys()):
            raise InputError(
                f"Step.load_state_dict: {', '.join(wrong[:4])} missing or unknown. Use the optimizer and the "
                "loss scale of the saved training."
            )
        for name, array in expected.items():
            if np.shape(state[name]) != array.shape:
                raise InputError(
                    f"Step.load_state_dict: {name} must have shape {array.shape}, got {np.shape(state[name])}."
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
        """Return the arrays that are saved without a change of layout, and the dtype of each."""
        arrays = {"counters": (self.counters, "int64"), "sums": (self.sums, "float64")}
        arrays["norm"] = (self.checked.norm, "float64")
        if self.scaling.array is not None:
            arrays["scaling"] = (self.scaling.array, self.network.dtype)
        return arrays
