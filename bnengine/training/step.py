"""One training step, in one place: forward, loss, back, judge, update, commit.

    forward and pullback of each micro-batch -> gradients and proposals of statistics, in buffers
    judge  -> ok: loss, gradients and proposals are finite; the gradients' norm; what clips them
    update -> where(ok, new, old) over the flat buffers: parameters and the optimizer's state
    commit -> where(ok, new, old) for the running statistics, here and nowhere else
    advance -> the counters

A step that is not ok changes parameters, state and statistics by no bit and is counted. The lines are straight: what
varies is data.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np

from .. import ops
from .._typing import Array
from ..data import Batch
from ..errors import InputError
from ..flat import Flat, Parameter
from ..losses import LossFunction
from ..memory import Arena
from ..network import Sequential
from ..ops import Into
from ..ops.update import IN_A_ROW, LONGEST, ROW, SKIPPED, STEPS
from ..optimizers import Optimizer
from ..plan import Plan
from .inputs import Inputs, Micro, Table


@dataclass(frozen=True)
class Average:
    """An exponential average of the weights: a <- decay a + (1 - decay) w after each successful step.

    `statistics`: "averaged" with the same decay, or "recomputed" from the training data for the averaged weights
    before each evaluation (what averaged weights really see; one more pass). Polyak and Juditsky (1992).
    """

    decay: float = 0.999
    statistics: Literal["averaged", "recomputed"] = "averaged"

    def __post_init__(self) -> None:
        if not 0 <= self.decay < 1:
            raise InputError(f"Average: decay {self.decay!r} is not in [0, 1); 0.999 is usual")
        if self.statistics not in ("averaged", "recomputed"):
            raise InputError(f"Average: statistics {self.statistics!r} is not 'averaged' or 'recomputed'")


class Report(NamedTuple):
    """What the host reads of the last step: loss and gradient norm (before clipping), and the counters."""

    loss: float
    norm: float
    ok: bool
    steps: int
    skipped: int
    skipped_in_a_row: int
    longest_skip: int


class Totals(NamedTuple):
    """What the host reads of an epoch: mean loss and share of rows classified right (None: no classes)."""

    loss: float
    accuracy: float | None
    rows: int


class Step:
    """The training step of a network: calling it with the micro-batches of one step runs it.

    `clip_norm`: gradients are scaled so that their global norm is at most this; None for never. `statistics`:
    proposals of the micro-batches are "merged" exactly into one update, or committed one after the other,
    "per_micro_batch", as other frameworks do. `average`: an `Average` of the weights, kept beside them.

    Where every op has a fused version, the first step of each shape is recorded as a plan while it runs, and later
    ones replay it: the same launches on the same memory, so the same bytes. `replay` False runs op by op.
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
        memory: Arena | None = None,
        replay: bool = True,
    ) -> None:
        if clip_norm is not None and not 0 < clip_norm < float("inf"):
            raise InputError(f"Step: clip_norm {clip_norm!r} is not a finite number above 0, or None")
        if statistics not in ("merged", "per_micro_batch"):
            raise InputError(f"Step: statistics {statistics!r} is not 'merged' or 'per_micro_batch'")
        self.network, self.optimizer, self.loss = network, optimizer, loss
        self.clip_norm, self.statistics, self.average = clip_norm, statistics, average
        backend = self.backend = network.backend
        xp, device, dtype = backend.xp, backend.device, backend.dtype(network.dtype)
        self.memory, self.replay = memory or Arena(), replay
        self.plans: dict[tuple[Any, ...], Plan] = {}
        self._recorded_in: tuple[int, ...] = ()
        self._froze: tuple[Any, ...] = ()
        self.inputs, self.table = Inputs(backend, network.dtype), Table(backend, network.dtype)
        self.gradients = network.gradients()
        self._propose(1)
        self.slots: dict[str, Flat | None] = {
            name: network.parameters.like() if present else None for name, present in optimizer.slots().items()
        }
        self.counters = xp.zeros((5,), dtype=xp.int64, device=device)
        self.sums = xp.zeros((4,), dtype=xp.float64, device=device)
        self.hits = xp.zeros((1,), dtype=xp.float64, device=device)
        self.value = xp.zeros((1,), dtype=dtype, device=device)
        self.verdict = ops.judge(self.value, self.gradients.array, self.proposals[0].array)
        self.outputs = network.outputs or 1
        constants = loss.constants(self.outputs)
        self.constants = None if constants is None else backend.asarray(constants, network.dtype)
        self.averaged = self._copies() if average else None
        self.schedule([0.0])

    def _propose(self, count: int) -> None:
        """Room for the proposals of so many micro-batches, in one buffer: (count, 3, C)."""
        statistics, xp = self.network.statistics, self.backend.xp
        self.proposed = xp.zeros((count, *statistics.array.shape), dtype=xp.float64, device=self.backend.device)
        self.proposals = [statistics.over(self.proposed[i, ...]) for i in range(count)]

    def _copies(self) -> tuple[Flat, Flat]:
        network, xp = self.network, self.backend.xp
        parameters, statistics = network.parameters, network.statistics
        return (
            parameters.over(xp.asarray(parameters.array, copy=True)),
            statistics.over(xp.asarray(statistics.array, copy=True)),
        )

    def schedule(self, rates: Sequence[float]) -> None:
        """The learning rates of the successful steps to come; behind the last one it stays. Reads the step count."""
        t = int(self.backend.to_numpy(self.counters)[STEPS])
        rows = np.asarray([self.optimizer.row(rate, t + 1 + i) for i, rate in enumerate(rates)], dtype=np.float64)
        if not (rows.ndim == 2 and np.all(np.isfinite(rows)) and np.all(rows[:, 0] >= 0)):
            raise InputError(
                f"Step: learning rates {list(rates)[:4]!r} ... must be finite, from 0 up, and at least one"
            )
        self.table.fill(rows)
        self.counters[ROW] = 0
        self.rates, self.called = list(rates), 0

    def _prolong(self) -> None:
        """More rows at the last rate, before the table can end: Adam's other scalars change where the rate stays."""
        row = int(self.backend.to_numpy(self.counters)[ROW])
        rest = self.rates[min(row, len(self.rates) - 1) :]
        self.schedule([*rest, *[rest[-1]] * max(64, len(self.rates))])

    def upload(self, batch: Batch, i: int = 0) -> Micro:
        """A batch as micro-batch i on the backend, its targets checked by the loss."""
        target = self.loss.targets(batch.y, self.outputs)
        weights = self.loss.weights(batch.weights, target)
        x, samples = self.network.asarray(batch.x), np.asarray(batch.samples)
        if not target.shape[:1] == samples.shape == (x.shape[0],):
            raise InputError(
                f"Step: {x.shape[0]} rows of input, targets of shape {target.shape}, sample indices of shape "
                f"{samples.shape}; give one target and one index a row"
            )
        return self.inputs.put(i, x, target, weights, samples)

    def total(self, batches: Sequence[Batch]) -> float:
        """What the loss of a step is divided by: the rows, or their weight, of all its micro-batches."""
        return sum(self.loss.total(self.loss.targets(b.y, self.outputs), b.weights, self.outputs) for b in batches)

    def __call__(self, batches: Sequence[Batch]) -> None:
        """One optimizer step over the micro-batches: gradients of one large batch, statistics merged."""
        if not batches:
            raise InputError("Step: no micro-batches; give at least one")
        total = self.total(batches)
        if not 0 < total < float("inf"):
            raise InputError(
                f"Step: the weights of the step sum to {total!r}; they must be finite and sum to more than 0"
            )
        if self.called >= len(self.rates):
            self._prolong()
        self.called += 1
        with np.errstate(all="ignore"):  # what is not finite is data here, and judged
            micros = [self.upload(batch, i) for i, batch in enumerate(batches)]
            self._run_or_replay(micros, self.inputs.weigh(total))

    def _run_or_replay(self, micros: list[Micro], normaliser: Array) -> None:
        """Replay the plan of such a step; record one if there is none. What a plan has baked in is its key."""
        if self.statistics == "per_micro_batch" and len(micros) > len(self.proposals):
            self._propose(len(micros))
        if not self.replay:
            self.run(micros, normaliser)
            return
        if self._recorded_in != (memory := self._generations()):
            self.plans.clear()  # they point to memory that was replaced since
            self._recorded_in = memory
        key = self._key(micros)
        if key[-1] != self._froze:  # no launch of the plan writes what is frozen now
            self.gradients.array[...] = 0
            self.proposed[...] = 0
            self._froze = key[-1]
        plan = self.plans.get(key)
        if plan is None:
            with self.memory.recording(self._owned()) as self.plans[key]:
                self.run(micros, normaliser)
            self._recorded_in = self._generations()
        elif plan.reasons:
            self.run(micros, normaliser)
        else:
            plan.replay()

    def _key(self, micros: list[Micro]) -> tuple[Any, ...]:
        """Everything that a recorded step holds as a constant: shapes, settings, freezes."""
        shapes = tuple((m.x.shape, m.target.shape, str(m.target.dtype), m.weights is None) for m in micros)
        settings = (self.clip_norm, self.optimizer, self.loss, self.average, self.statistics, self.network.seed)
        frozen = tuple((h.frozen, getattr(h, "normalises", False)) for h in self.network.named_handles().values())
        return shapes, settings, frozen

    def _generations(self) -> tuple[int, ...]:
        """Counts of the replacements of memory that plans point to."""
        return self.inputs.generation, self.table.generation, self.memory.layout, len(self.proposals)

    def _owned(self) -> list[Array]:
        """The memory that outlives a step and that a replay reads."""
        network = self.network
        flats = [flat for flat in (*self.slots.values(), *(self.averaged or ())) if flat is not None]
        held = [self.counters, self.sums, self.hits, self.value, *self.verdict, self.table.array, self.proposed]
        buffers = [network.parameters, network.statistics, self.gradients, *flats]
        rules = [a for a in (network.decay, network.unbiased, self.constants) if a is not None]
        return [*held, *rules, *self.inputs.arrays(), *(flat.array for flat in buffers)]

    def run(self, micros: Sequence[Micro], normaliser: Array) -> None:
        """The step itself, on arrays of the backend."""
        network, memory, counters = self.network, self.memory, self.counters
        self.gradients.start()
        for i, micro in enumerate(micros):
            self._gradients_of(i, micro, normaliser)
        self.gradients.finish()
        proposals = self._finish_proposals(len(micros))

        judged = {name: Into(array) for name, array in self.verdict._asdict().items()}
        ok, _, factor = ops.judge(
            self.value,
            self.gradients.array,
            self.proposed[: len(proposals), ...],
            clip=self.clip_norm,
            memory=memory,
            into=judged,
        )
        parameters = network.parameters.array
        state = {name: None if flat is None else flat.array for name, flat in self.slots.items()}
        into = {"parameters": Into(parameters)} | {
            name: Into(array) for name, array in state.items() if array is not None
        }
        self.optimizer.op(
            parameters, self.gradients.array, *state.values(), self.table.array, counters, ok, factor,
            border=network.border, frozen=self._frozen(), **self.optimizer.options(), memory=memory, into=into,
        )  # fmt: skip
        running = network.statistics.array
        for proposal in proposals:
            ops.commit(
                running, proposal.array, ok, network.decay, network.unbiased, memory=memory, into={"out": Into(running)}
            )
        if self.average is not None and self.averaged is not None:
            for averaged, values in zip(self.averaged, (parameters, running), strict=True):
                a = averaged.array
                ops.average(a, values, ok, decay=self.average.decay, memory=memory, into={"out": Into(a)})
        rows = sum(micro.x.shape[0] for micro in micros)
        ops.tally(
            self.sums, self.value, normaliser, self.hits, ok, rows=rows, memory=memory, into={"out": Into(self.sums)}
        )
        ops.advance(counters, ok, memory=memory, into={"out": Into(counters)})

    def _gradients_of(self, i: int, micro: Micro, normaliser: Array) -> None:
        proposals = self.proposals[i if self.statistics == "per_micro_batch" else 0]
        if proposals is not self.proposals[0] or i == 0:
            proposals.start()
        forward = self.network.forward(
            micro.x,
            training=True,
            memory=self.memory,
            proposals=proposals,
            samples=micro.samples,
            step=self.counters[:1],
        )
        classes = self.backend.xp.isdtype(micro.target.dtype, "integral")
        if tuple(micro.target.shape) != tuple(forward.output.shape[:-1] if classes else forward.output.shape):
            raise InputError(
                f"Step: targets of shape {tuple(micro.target.shape)} for an output of shape "
                f"{tuple(forward.output.shape)}; give a class for each row, or a value for each output"
            )
        into = {"value": Into(self.value, adds=i > 0)}
        loss = self.loss(
            forward.output, micro.target, micro.weights, self.constants, normaliser, memory=self.memory, into=into
        )
        if self.loss.task == "classification":
            ops.hits(forward.output, micro.target, memory=self.memory, into={"out": Into(self.hits, adds=i > 0)})
        forward.pullback(loss.dlogits, self.gradients, dx=False)

    def _finish_proposals(self, micros: int) -> list[Flat]:
        used = self.proposals[: micros if self.statistics == "per_micro_batch" else 1]
        for proposal in used:
            proposal.finish()
        return used

    def _frozen(self) -> tuple[tuple[int, int], ...]:
        parameters = self.network.parameters
        return parameters.ranges(h for h in parameters if isinstance(h, Parameter) and h.frozen)

    # -- what the host reads ----------------------------------------------------------------------------------------

    def start_epoch(self) -> None:
        """Forget the sums of the epoch before."""
        self.sums[...] = 0

    def forget_skips(self) -> None:
        """Begin a new count of the steps skipped in a row."""
        self.counters[IN_A_ROW:] = 0

    def totals(self) -> Totals:
        """Means over the epoch's successful steps: a read that waits for the device."""
        loss, weight, hits, rows = (float(s) for s in self.backend.to_numpy(self.sums))
        accuracy = hits / rows if rows and self.loss.task == "classification" else None
        return Totals(loss / weight if weight else float("nan"), accuracy, int(rows))

    def report(self) -> Report:
        """Loss, norm and counters of the last step: a read that waits for the device."""
        read = self.backend.to_numpy
        counters = read(self.counters)
        loss, norm, ok = (read(a)[0] for a in (self.value, self.verdict.norm, self.verdict.ok))
        counts = (int(counters[i]) for i in (STEPS, SKIPPED, IN_A_ROW, LONGEST))
        return Report(float(loss), float(norm), bool(ok), *counts)

    def state_dict(self) -> dict[str, np.ndarray]:
        """Optimizer state, counters and averages as named NumPy arrays: what resuming needs beside the network."""
        network = self.network
        held = {"counters": self.counters, "sums": self.sums, "norm": self.verdict.norm}
        state = {name: self.backend.to_numpy(array, copy=True) for name, array in held.items()}
        state["counters"][ROW] = 0  # a place in the table of rates, which `schedule` gives anew
        for slot, flat in self.slots.items():
            if flat is not None:
                named = network.export(flat, network.statistics)
                state.update({f"optimizer.{slot}.{name}": named[name] for name in network.named_parameters()})
        if self.averaged is not None:
            state.update({f"average.{name}": array for name, array in network.export(*self.averaged).items()})
        return state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over what `state_dict` gave; a missing, unknown or misshapen entry is an error, and nothing is changed
        then.
        """
        expected = self.state_dict()
        if wrong := sorted(expected.keys() ^ state.keys()):
            raise InputError(
                f"Step.load_state_dict: {', '.join(wrong[:4])} missing or unknown; the optimizer must be the one "
                "that was saved"
            )
        for name, array in expected.items():
            if np.shape(state[name]) != array.shape:
                raise InputError(
                    f"Step.load_state_dict: {name} has shape {np.shape(state[name])}; needed is {array.shape}"
                )
        asarray, dtype = self.backend.asarray, self.network.dtype
        new = [(self.counters, asarray(state["counters"], "int64"))]
        new += [
            (array, asarray(state[name], "float64"))
            for name, array in (("sums", self.sums), ("norm", self.verdict.norm))
        ]
        handles = [(n, h) for n, h in self.network.named_handles().items() if isinstance(h, Parameter)]
        for slot, flat in self.slots.items():
            if flat is not None:
                new += [(flat[h], asarray(state[f"optimizer.{slot}.{name}"], dtype)) for name, h in handles]
        if self.averaged is not None:
            averaged = {k.removeprefix("average."): v for k, v in state.items() if k.startswith("average.")}
            self.network.import_into(averaged, *self.averaged)
        for view, array in new:
            view[...] = array
        self.called = len(self.rates)  # the table was made for another step count: the next step makes it anew
