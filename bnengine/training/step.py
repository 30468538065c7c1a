"""One training step, from top to bottom: gradients, check, update, commit.

    gradients -> gradients and pending statistics of every micro-batch, in buffers; nothing else changes
    check     -> ok: loss, gradients and pending statistics are finite; the gradients' norm; the factor that clips them
    update    -> where(ok, new, old) for parameters and the optimizer's state
    commit    -> where(ok, new, old) for the running statistics, here and nowhere else

Each is a function of the `StepState` and its inputs. A step that is not ok changes parameters, optimizer state and
statistics by no bit and is counted. What varies is data and no branch, so `Step` can record the launches of a step once
and replay them.
"""

from collections.abc import Hashable, Sequence
from functools import partial
from typing import Any, Literal

import numpy as np

from .. import ops
from .._typing import Array
from ..data import Batch
from ..errors import InputError
from ..layers import walk
from ..losses import LossFunction
from ..network.sequential import Sequential
from ..ops import Out, onto
from ..ops.check_step import StepCheck
from ..ops.update import SKIPPED
from ..optim.optimizers import Optimizer
from ..runtime.flat import Flat
from ..runtime.memory import Arena
from ..runtime.plan import Plan
from .inputs import Inputs, Micro
from .replaying import Graph, Mode, ReplayCache
from .rows import HostRows, Rows, Taken
from .scaling import Given
from .state import Average, Report, StepState, Totals
from .watching import from_outside


def train(state: StepState, rows: Taken) -> None:
    """Run one training step."""
    pending = gradients(state, rows)
    verdict = check(state, pending)
    update(state, verdict)
    commit(state, pending, verdict, rows)


def gradients(state: StepState, rows: Taken) -> list[Flat]:
    """Run each micro-batch forward and backward: loss and gradients are those of one large batch.

    Returns:
        The pending statistics: one for all micro-batches, merged exactly, or one for each.
    """
    each = state.statistics == "per_micro_batch"
    pending = state.pending[: len(rows.micros) if each else 1]
    state.gradients.start()
    for i, micro in enumerate(rows.micros):
        if each or i == 0:
            pending[i].start()
        _gradients_of(state, micro, rows.divisor, pending[i if each else 0], first=i == 0)
    for flat in (state.gradients, *pending):
        state.gaps |= flat.finish()
    if state.gradients.put_by_hand:
        state.memory.outside("a layer computed gradients outside the ops")
    return pending


def _gradients_of(state: StepState, micro: Micro, divisor: Array, pending: Flat, *, first: bool) -> None:
    network, loss, run, add = state.network, state.loss, state.memory.run, not first
    keys = {"samples": micro.samples, "step": state.counters[:1]}  # of dropout
    forward = run(network.forward, micro.x, training=True, pending=pending, **keys)
    output, target = forward.output, micro.target
    _check_target(target, output, classes=state.backend.xp.isdtype(target.dtype, "integral"))
    given = output, target, micro.weights, state.constants, divisor
    found = run(loss, *given, into={"value": Out(state.value, add)}, **state.scaling.of_loss())
    if loss.task == "classification":
        run(ops.correct, output, target, into={"out": Out(state.correct, add)})
    forward.pullback(found.dlogits, state.gradients, dx=False)


def _check_target(target: Array, output: Array, *, classes: bool) -> None:
    needed = output.shape[:-1] if classes else output.shape
    if tuple(target.shape) != tuple(needed):
        raise InputError(
            f"Step: targets of shape {tuple(target.shape)} for an output of shape {tuple(output.shape)}; give a class "
            "for each row, or a value for each output"
        )


def check(state: StepState, pending: Sequence[Flat]) -> StepCheck:
    """Are loss, gradients and pending statistics finite? All of it stays on the device, the next loss scale too."""
    given = state.value, state.gradients.array, state.proposed[: len(pending), ...], state.scaling.array
    into = onto(**state.verdict._asdict()) | state.scaling.into()
    return state.memory.run(ops.check_step, *given, clip=state.clip_norm, into=into, **state.scaling.of_judge())


def update(state: StepState, verdict: StepCheck) -> None:
    """Change parameters and optimizer state in one pass over their flat buffers, where the step is ok."""
    network, optimizer = state.network, state.optimizer
    slots = {name: None if flat is None else flat.array for name, flat in state.slots.items()}
    narrow = {} if network.copy16 is None else {"copy16": network.copy16.array}  # parameters in 16 bits, for products
    p = network.parameters.array
    given = p, state.gradients.array, *slots.values(), state.table.array, state.counters, verdict.ok, verdict.factor
    options = {"decay_end": network.decay_end, "frozen": state.frozen(), **optimizer.options()}
    state.memory.run(optimizer.op, *given, *narrow.values(), **options, into=onto(parameters=p, **slots, **narrow))


def commit(state: StepState, pending: Sequence[Flat], verdict: StepCheck, rows: Taken) -> None:
    """Change running statistics, averages and the epoch's sums where the step is ok, and count the step."""
    network, run, ok = state.network, state.memory.run, verdict.ok
    running = network.statistics.array
    for flat in pending:
        run(ops.commit, running, flat.array, ok, *network.commit_rules, into=onto(out=running))
    if state.average is not None and state.averaged is not None:
        for averaged, values in zip(state.averaged, (network.parameters.array, running), strict=True):
            a = averaged.array
            run(ops.average, a, values, ok, decay=state.average.decay, into=onto(out=a))
    count = sum(micro.x.shape[0] for micro in rows.micros)
    given = state.sums, state.value, rows.divisor, state.correct, ok
    run(ops.add_epoch_sums, *given, rows=count, into=onto(out=state.sums))
    into = onto(counters=state.counters, cursor=rows.cursor)
    run(ops.count_step, state.counters, ok, rows.cursor, rows=count, into=into)


class Step:
    """Runs training steps: `step(batches)` on the micro-batches of one step, `step.next(rows)` on a step's share of
    an epoch.

    Where every op has a fused version, the first step of each shape is recorded as a plan while it runs, and later
    ones replay it: the same launches on the same memory, so the same bytes.

    Args:
        clip_norm: Gradients are scaled so that their global norm is at most this; None for never.
        statistics: Those of the micro-batches are "merged" exactly into one update, or committed one after the other,
            "per_micro_batch", as other frameworks do.
        average: An `Average` of the weights, kept next to them.
        memory: Where outputs of ops live; None for a new arena.
        replay: False runs every step op by op.
        graph: "auto" replays as one graph or native call where there is such, False launch by launch; True raises where
            there is no graph.
        loss_scale: A `LossScale`, "auto" for one in precision "float16", a number for a scale that stays, None for
            none.
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
        self.network, self.backend, self.memory, self.graph = network, network.backend, memory or Arena(), graph
        self.state = StepState(
            network, optimizer, loss,
            clip_norm=clip_norm, statistics=statistics, average=average, loss_scale=loss_scale, memory=self.memory,
        )  # fmt: skip
        self.inputs = Inputs(network, loss)
        self._replays = ReplayCache(
            self.memory, self.backend.name, network.changes, replay=replay, graph=graph, outside=self._from_outside
        )
        self._skips = self.state.counters[SKIPPED:]  # once, and not in every step of a GPU's host
        self._last_key: Hashable = None

    def __call__(self, batches: Sequence[Batch]) -> None:
        """Run one optimizer step over these micro-batches."""
        if not batches:
            raise InputError("Step: no micro-batches; give at least one")
        self.next(HostRows.of(self.inputs, batches))

    def next(self, rows: Rows, times: int = 1) -> int:
        """Run the next step of `rows`, or up to `times` steps where that is one native call.

        Returns:
            How many steps ran. A native call ends after a step that was skipped.
        """
        if times < 1 or not rows.alike:
            raise InputError(f"Step: {times} steps of {rows!r}; ask for one or more, and start an epoch that has rows")
        state = self.state
        times = min(times, rows.alike, state.table.left(state.optimizer))
        kind = rows.bring()
        if state.statistics == "per_micro_batch" and len(rows.sizes) > len(state.pending):
            state.propose(len(rows.sizes))
        key = kind, state.settings()
        if key != self._last_key:
            state.clear_gaps()
        self._last_key = key
        done = self._replays(
            key, self._generations, partial(self._owned, rows), partial(self._run, rows), times, self._skips
        )
        state.table.used += done
        rows.advance(done)
        return done

    def _run(self, rows: Rows) -> None:
        with np.errstate(all="ignore"):  # what is not finite is data here, and checked
            train(self.state, rows.take(self.memory))

    def _generations(self) -> tuple[int, ...]:
        """Counts of the replacements of memory that plans point to."""
        return self.inputs.generation, self.state.table.generation, self.memory.layout, len(self.state.pending)

    def _owned(self, rows: Rows) -> list[Array]:
        return [*self.state.arrays(), *rows.arrays(), *self.inputs.arrays()]

    def _from_outside(self) -> list[str]:
        """The classes whose code runs inside a step and that bnengine does not define."""
        state = self.state
        return from_outside([*(layer for _, layer in walk(self.network.layers)), state.loss, state.optimizer])

    @property
    def plans(self) -> dict[Hashable, Plan]:
        """The recorded steps, by what they depend on."""
        return self._replays.plans

    def modes(self) -> list[Mode]:
        """How recorded steps run: as one graph or native call, launch by launch, or op by op, and why."""
        return self._replays.modes()

    def schedule(self, rates: Sequence[float]) -> None:
        """Set the learning rates of the next successful steps; after the last one it stays. Reads the step count."""
        self.state.schedule(rates)

    def totals(self) -> Totals:
        """Means over the epoch's successful steps: a read that waits for the device."""
        return self.state.totals()

    def report(self) -> Report:
        """Loss, norm and counters of the last step: a read that waits for the device."""
        return self.state.report()

    def state_dict(self) -> dict[str, np.ndarray]:
        """Optimizer state, counters and averages as named NumPy arrays: what resuming needs next to the network."""
        return self.state.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over what `state_dict` gave, all or nothing. InputError for a missing, unknown or misshapen entry."""
        self.state.load_state_dict(state)
