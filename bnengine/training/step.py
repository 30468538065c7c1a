"""One training step, in one place: forward, loss, back, judge, update, commit.

    forward and pullback of each micro-batch -> gradients and proposals of statistics, in buffers
    judge  -> ok: loss, gradients and proposals are finite; the gradients' norm; what clips them
    update -> where(ok, new, old) over the flat buffers: parameters and the optimizer's state
    commit -> where(ok, new, old) for the running statistics, here and nowhere else
    advance -> the counters

A step that is not ok changes parameters, state and statistics by no bit and is counted. The lines are straight: what
varies is data.
"""

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np

from .. import ops
from .._typing import Array
from ..data import ArraySource, Batch
from ..errors import InputError
from ..layers import walk
from ..losses import LossFunction
from ..network.sequential import Sequential
from ..ops import Into, onto
from ..ops.update import IN_A_ROW, LONGEST, ROW, SKIPPED, STEPS
from ..optim.optimizers import Optimizer
from ..runtime.flat import Flat, Parameter
from ..runtime.memory import Arena
from ..runtime.plan import Plan
from .inputs import Inputs, Micro, Table
from .replaying import Graph, Mode, Replays
from .resident import Resident
from .scaling import Given, Scaling, get_loss_scale
from .state import load_state, state_of
from .watching import from_outside


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
    loss_scale: float | None = None


class Totals(NamedTuple):
    """What the host reads of an epoch: mean loss and share of rows classified right (None: no classes)."""

    loss: float
    accuracy: float | None
    rows: int


class Step:
    """The training step of a network: calling it with the micro-batches of one step runs it.

    `clip_norm`: gradients are scaled so that their global norm is at most this; None for never. `statistics`:
    proposals of the micro-batches are "merged" exactly into one update, or committed one after the other,
    "per_micro_batch", as other frameworks do. `average`: an `Average` of the weights, kept beside them. `loss_scale`:
    a `LossScale`, "auto" for one in precision "float16", a number for a scale that stays, None for none.

    Where every op has a fused version, the first step of each shape is recorded as a plan while it runs, and later
    ones replay it: the same launches on the same memory, so the same bytes. `replay` False runs op by op. `graph`:
    "auto" replays as one graph or native call where there is such, False launch by launch, True is an error where there
    is no graph.

    `hold` brings a whole data set to the backend; `next` is then a step whose rows are gathered by a launch of its own.
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
        graph: Graph = "auto",
        loss_scale: Given = "auto",
    ) -> None:
        if clip_norm is not None and not 0 < clip_norm < float("inf"):
            raise InputError(f"Step: clip_norm {clip_norm!r} is not a finite number above 0, or None")
        if statistics not in ("merged", "per_micro_batch"):
            raise InputError(f"Step: statistics {statistics!r} is not 'merged' or 'per_micro_batch'")
        self.network, self.optimizer, self.loss = network, optimizer, loss
        self.clip_norm, self.statistics, self.average = clip_norm, statistics, average
        backend = self.backend = network.backend
        xp, device, dtype = backend.xp, backend.device, backend.dtype(network.dtype)
        self.memory = memory or Arena()
        self.graph = graph
        self._replays = Replays(
            self.memory, backend.name, network.changes, replay=replay, graph=graph, outside=self._from_outside
        )
        self._gaps = False  # whether a step left gradients or proposals unwritten: of what is frozen, or has no batch
        self._last_key: Hashable = None
        self.resident: Resident | None = None
        self._held = 0  # data sets that were brought in, one after the other
        self.scaling = Scaling(get_loss_scale(loss_scale, network.precision), network)
        self.inputs, self.table = Inputs(network, loss), Table(backend, network.dtype)
        self.gradients = network.gradients()
        self._propose(1)
        self.slots: dict[str, Flat | None] = {
            name: network.parameters.like() if present else None for name, present in optimizer.slots().items()
        }
        self.counters = xp.zeros((5,), dtype=xp.int64, device=device)
        self._skips = self.counters[SKIPPED:]  # once, and not in every step of a GPU's host
        self.sums = xp.zeros((4,), dtype=xp.float64, device=device)
        self.hits = xp.zeros((1,), dtype=xp.float64, device=device)
        self.value = xp.zeros((1,), dtype=dtype, device=device)
        self.verdict = ops.judge(self.value, self.gradients.array, self.proposals[0].array)
        constants = loss.constants(network.outputs or 1)
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

    def __call__(self, batches: Sequence[Batch]) -> None:
        """One optimizer step over the micro-batches: gradients of one large batch, statistics merged."""
        if not batches:
            raise InputError("Step: no micro-batches; give at least one")
        normaliser = self.inputs.weigh(batches)
        self._scheduled()
        with np.errstate(all="ignore"):  # what is not finite is data here, and judged
            micros = [self.inputs.put(i, batch) for i, batch in enumerate(batches)]
        shapes = tuple((m.x.shape, m.target.shape, str(m.target.dtype), m.weights is None) for m in micros)
        self._step(shapes, len(micros), lambda: self.run(micros, normaliser))

    def hold(self, source: ArraySource) -> Resident:
        """Bring all data of a source to the backend, in place of what was held; `Resident.start` begins an epoch."""
        self.resident = Resident(source, self.inputs)
        self._held += 1
        return self.resident

    def next(self, sizes: tuple[int, ...], times: int = 1) -> int:
        """An optimizer step over the next rows of the data held, in micro-batches of these sizes.

        `times`: so many such steps are wanted, one behind the other. Returns how many were done: one, or where a replay
        is one native call as many as it ran, which ends behind a step that was skipped.
        """
        if self.resident is None:
            raise InputError("Step.next: no data is held; call hold(source) and start an epoch, or give batches")
        self.resident.check(sizes, times)
        times = min(times, self._scheduled())
        done = self._step(sizes, len(sizes), lambda: self._run_gathered(sizes), times)
        self.resident.take(sizes, done)
        return done

    def _scheduled(self) -> int:
        """How many more steps the table has rows for: at least one."""
        if self.called >= len(self.rates):
            self._prolong()
        return len(self.rates) - self.called

    def _step(self, kind: Hashable, micros: int, run: Callable[[], None], times: int = 1) -> int:
        """Run a step or replay it; its key is everything that a plan holds as a constant: shapes, settings, freezes."""
        if self.statistics == "per_micro_batch" and micros > len(self.proposals):
            self._propose(micros)
        network = self.network
        options = self.clip_norm, self.optimizer, self.loss, self.average, self.statistics, self.scaling.settings
        key = kind, (*options, network.seed, network.freezes)
        if self._gaps and key != self._last_key:  # what no launch of this plan writes, one of the last plan may have
            self.gradients.array[...] = 0
            self.proposed[...] = 0
        self._last_key = key
        done = self._replays(key, self._generations, self._owned, run, times, self._skips)
        self.called += done
        return done

    @property
    def plans(self) -> dict[Hashable, Plan]:
        """The recorded steps, by what they depend on."""
        return self._replays.plans

    def modes(self) -> list[Mode]:
        """How recorded steps run: as one graph or native call, launch by launch, or op by op, and why."""
        return self._replays.modes()

    def _generations(self) -> tuple[int, ...]:
        """Counts of the replacements of memory that plans point to."""
        return self.inputs.generation, self.table.generation, self.memory.layout, len(self.proposals), self._held

    def _from_outside(self) -> list[str]:
        """The classes whose code runs inside a step and that bnengine does not define."""
        return from_outside([*(layer for _, layer in walk(self.network.layers)), self.loss, self.optimizer])

    def _owned(self) -> list[Array]:
        """The memory that outlives a step and that a replay reads."""
        network = self.network
        flats = [flat for flat in (*self.slots.values(), *(self.averaged or ())) if flat is not None]
        held = [self.counters, self.sums, self.hits, self.value, *self.verdict[:3], *self.scaling.memory()]
        held += [self.table.array, self.proposed]
        buffers = [network.parameters, network.statistics, self.gradients, *flats]
        buffers += [] if network.shadow is None else [network.shadow]
        rules = [a for a in (*network.commit_rules, self.constants) if a is not None]
        data = [] if self.resident is None else self.resident.memory()
        return [*held, *rules, *data, *self.inputs.arrays(), *(flat.array for flat in buffers)]

    def _run_gathered(self, sizes: tuple[int, ...]) -> None:
        """The step on the rows that the cursor stands at."""
        resident, micros, offset = self.resident, list[Micro](), 0
        assert resident is not None
        for i, rows in enumerate(sizes):
            micros.append(self.inputs.views(i, resident.fields(rows)))
            into = onto(**micros[i]._asdict(), normaliser=self.inputs.normaliser)
            resident.gather(rows=rows, offset=offset, memory=self.memory, into=into)
            offset += rows
        self.run(micros, self.inputs.normaliser, resident.cursor)

    def run(self, micros: Sequence[Micro], normaliser: Array, cursor: Array | None = None) -> None:
        """The step itself, on arrays of the backend; `cursor` is moved behind its rows."""
        with np.errstate(all="ignore"):  # what is not finite is data here, and judged
            self._run(micros, normaliser, cursor)

    def _run(self, micros: Sequence[Micro], normaliser: Array, cursor: Array | None) -> None:
        network, run, counters = self.network, self.memory.run, self.counters
        self.gradients.start()
        for i, micro in enumerate(micros):
            self._gradients_of(i, micro, normaliser)
        self._gaps |= self.gradients.finish()
        if self.gradients.put_by_hand:
            self.memory.outside("a layer computed gradients outside the ops")
        proposals = self._finish_proposals(len(micros))

        judged = onto(**self.verdict._asdict())
        ok, _, factor, _ = run(
            ops.judge,
            self.value,
            self.gradients.array,
            self.proposed[: len(proposals), ...],
            self.scaling.array,
            clip=self.clip_norm,
            into=judged | self.scaling.into(),
            **self.scaling.of_judge(),
        )
        parameters = network.parameters.array
        state = {name: None if flat is None else flat.array for name, flat in self.slots.items()}
        shadow = {} if network.shadow is None else {"shadow": network.shadow.array}
        run(
            self.optimizer.op,
            parameters, self.gradients.array, *state.values(), self.table.array, counters, ok, factor, *shadow.values(),
            border=network.border, frozen=self._frozen(), **self.optimizer.options(),
            into=onto(parameters=parameters, **state, **shadow),
        )  # fmt: skip
        running = network.statistics.array
        for proposal in proposals:
            run(ops.commit, running, proposal.array, ok, *network.commit_rules, into=onto(out=running))
        if self.average is not None and self.averaged is not None:
            for averaged, values in zip(self.averaged, (parameters, running), strict=True):
                a = averaged.array
                run(ops.average, a, values, ok, decay=self.average.decay, into=onto(out=a))
        rows = sum(micro.x.shape[0] for micro in micros)
        run(ops.tally, self.sums, self.value, normaliser, self.hits, ok, rows=rows, into=onto(out=self.sums))
        run(ops.advance, counters, ok, cursor, rows=rows, into=onto(counters=counters, cursor=cursor))

    def _gradients_of(self, i: int, micro: Micro, normaliser: Array) -> None:
        proposals = self.proposals[i if self.statistics == "per_micro_batch" else 0]
        if proposals is not self.proposals[0] or i == 0:
            proposals.start()
        run = self.memory.run
        forward = run(
            self.network.forward,
            micro.x,
            training=True,
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
        given = forward.output, micro.target, micro.weights, self.constants, normaliser
        loss = run(self.loss, *given, into=into, **self.scaling.of_loss())
        if self.loss.task == "classification":
            run(ops.hits, forward.output, micro.target, into={"out": Into(self.hits, adds=i > 0)})
        forward.pullback(loss.dlogits, self.gradients, dx=False)

    def _finish_proposals(self, micros: int) -> list[Flat]:
        used = self.proposals[: micros if self.statistics == "per_micro_batch" else 1]
        for proposal in used:
            self._gaps |= proposal.finish()
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
        self.scaling.forget_skips()

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
        steps, skipped, in_a_row, longest = (int(counters[i]) for i in (STEPS, SKIPPED, IN_A_ROW, LONGEST))
        scale, in_a_row, longest = self.scaling.read() or (None, in_a_row, longest)
        return Report(float(loss), float(norm), bool(ok), steps, skipped, in_a_row, longest, scale)

    def state_dict(self) -> dict[str, np.ndarray]:
        """Optimizer state, counters and averages as named NumPy arrays: what resuming needs beside the network."""
        return state_of(self)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over what `state_dict` gave; a missing, unknown or misshapen entry is an error, and nothing is changed
        then.
        """
        load_state(self, state)
        self.called = len(self.rates)  # the table was made for another step count: the next step makes it anew
