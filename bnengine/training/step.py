"""One training step, from top to bottom: gradients, check, update, commit.

    gradients -> gradients and pending statistics of every micro-batch, in buffers; nothing else changes
    check     -> ok: loss, gradients and pending statistics are finite; the gradients' norm; the factor that clips them
    update    -> where(ok, new, old) for parameters and the optimizer's state
    commit    -> where(ok, new, old) for the running statistics, here and nowhere else

Each is a function of the `StepState` and its inputs. A step that is not ok changes no bit of parameters, optimizer
state and statistics, and is counted as skipped. Nothing branches on data, so `Step` can record the launches of a step
once and replay them.
"""

from collections.abc import Hashable, Sequence
from functools import partial
from typing import Any

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
from .confirmation import custom_classes
from .inputs import Inputs, MicroBatch
from .replaying import Graph, ReplayCache, ReplayInfo
from .rows import HostRows, Rows, StepRows
from .state import Report, StepState, Totals


def train(state: StepState, rows: StepRows) -> None:
    """Run one training step."""
    pending = gradients(state, rows)
    checked = check(state, pending)
    update(state, checked)
    commit(state, pending, checked, rows)


def gradients(state: StepState, rows: StepRows) -> list[Flat]:
    """Run each micro-batch forward and backward. Loss and gradients become those of one large batch.

    Returns:
        The pending statistics: one of all micro-batches, merged exactly, or one of each.
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


def _gradients_of(state: StepState, micro: MicroBatch, divisor: Array, pending: Flat, *, first: bool) -> None:
    network, loss, run, add = state.network, state.loss, state.memory.run, not first
    keys = {"samples": micro.samples, "step": state.counters[:1]}  # of dropout
    forward = run(network.forward, micro.x, training=True, pending=pending, **keys)
    output, target = forward.output, micro.target
    _check_target(target, output, classes=state.backend.xp.isdtype(target.dtype, "integral"))
    arguments = output, target, micro.weights, state.constants, divisor
    result = run(loss, *arguments, into={"value": Out(state.value, add)}, **state.scaling.loss_options())
    if result.value is not state.value:
        raise InputError(
            f"Step: the loss {loss.name!r} must write its value to the destination into['value'], got another array. "
            "Pass memory= and into= on to the op that it calls."
        )
    if loss.task == "classification":
        run(ops.correct, output, target, into={"out": Out(state.correct, add)})
    forward.pullback(result.dlogits, state.gradients, dx=False)


def _check_target(target: Array, output: Array, *, classes: bool) -> None:
    needed = output.shape[:-1] if classes else output.shape
    if tuple(target.shape) != tuple(needed):
        one_hot = " Pass one-hot targets as y.argmax(axis=-1)." if classes and target.shape == output.shape else ""
        raise InputError(
            f"Step: targets must be a class per row, or a value per output, of {tuple(output.shape)}, got shape "
            f"{tuple(target.shape)}.{one_hot}"
        )


def check(state: StepState, pending: Sequence[Flat]) -> StepCheck:
    """Check that loss, gradients and pending statistics are finite; the result stays on the device."""
    arguments = state.value, state.gradients.array, state.pending_array[: len(pending), ...], state.scaling.array
    into = onto(**state.checked._asdict()) | state.scaling.outputs()
    return state.memory.run(
        ops.check_step, *arguments, clip=state.clip_norm, into=into, **state.scaling.check_options()
    )


def update(state: StepState, checked: StepCheck) -> None:
    """Change parameters and optimizer state in one pass over their flat buffers, if the step is ok."""
    network, optimizer = state.network, state.optimizer
    slots = {name: None if flat is None else flat.array for name, flat in state.slots.items()}
    narrow = {} if network.copy16 is None else {"copy16": network.copy16.array}  # parameters in 16 bits, for products
    p = network.parameters.array
    arguments = p, state.gradients.array, *slots.values(), state.table.array, state.counters, checked.ok, checked.factor
    options = {"decay_end": network.decay_end, "frozen": state.frozen(), **optimizer.options()}
    state.memory.run(optimizer.op, *arguments, *narrow.values(), **options, into=onto(parameters=p, **slots, **narrow))


def commit(state: StepState, pending: Sequence[Flat], checked: StepCheck, rows: StepRows) -> None:
    """Change running statistics, averages and the epoch's sums, if the step is ok, and count the step."""
    network, run, ok = state.network, state.memory.run, checked.ok
    running = network.statistics.array
    for flat in pending:
        run(ops.commit, running, flat.array, ok, *network.commit_rules, into=onto(out=running))
    if state.average is not None and state.averaged is not None:
        for averaged, values in zip(state.averaged, (network.parameters.array, running), strict=True):
            a = averaged.array
            run(ops.average, a, values, ok, decay=state.average.decay, into=onto(out=a))
    count = sum(micro.x.shape[0] for micro in rows.micros)
    arguments = state.sums, state.value, rows.divisor, state.correct, ok
    run(ops.add_epoch_sums, *arguments, rows=count, into=onto(out=state.sums))
    into = onto(counters=state.counters, cursor=rows.cursor)
    run(ops.count_step, state.counters, ok, rows.cursor, rows=count, into=into)


class Step:
    """Runs training steps: `step(batches)` on the micro-batches of one step, `step.next(rows)` on those of an epoch.

    If every op has a fused version, the first step of each shape is recorded as a plan while it runs, and later ones
    replay it: the same launches on the same memory, so the same bytes.

    Args:
        network, optimizer, loss: of the training.
        memory: where outputs of ops are allocated; None for a new arena.
        replay: False runs every step op by op.
        graph: "auto" replays as one graph or native call if that is possible, False launch by launch; True raises if
            there is no graph.
        options: `clip_norm`, `statistics`, `average` and `loss_scale` of `StepState`.

    Raises:
        InputError: a wrong argument.
    """

    def __init__(
        self,
        network: Sequential,
        optimizer: Optimizer,
        loss: LossFunction,
        *,
        memory: Arena | None = None,
        replay: bool = True,
        graph: Graph = "auto",
        **options: Any,
    ) -> None:
        self.network, self.backend, self.memory, self.graph = network, network.backend, memory or Arena(), graph
        self.state = StepState(network, optimizer, loss, memory=self.memory, **options)
        self.inputs = Inputs(network, loss)
        self._replays = ReplayCache(
            self.memory, self.backend.name, network.changes, replay=replay, graph=graph, custom=self._custom_classes
        )
        self._skips = self.state.counters[SKIPPED:]  # sliced once, since slicing takes time in every step on a GPU
        self._last_key: Hashable = None

    def __call__(self, batches: Sequence[Batch]) -> None:
        """Run one optimizer step over these micro-batches."""
        if not batches:
            raise InputError("Step: no micro-batches. Pass at least one.")
        self.next(HostRows.of(self.inputs, batches))

    def next(self, rows: Rows, times: int = 1) -> int:
        """Run the next step of `rows`, or up to `times` steps if one native call can run them.

        Returns:
            How many steps ran. A native call ends after a step that was skipped.
        """
        if times < 1 or not rows.steps_alike:
            raise InputError(
                f"Step: {times} steps of {rows!r} cannot run. Pass times=1 or more, and start an epoch that has rows."
            )
        state = self.state
        times = min(times, rows.steps_alike, state.table.left(state.optimizer))
        kind = rows.load()
        if state.statistics == "per_micro_batch" and len(rows.sizes) > len(state.pending):
            state.allocate_pending(len(rows.sizes))
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
        with np.errstate(all="ignore"):  # `check` handles what is not finite
            train(self.state, rows.get(self.memory))

    def _generations(self) -> tuple[int, ...]:
        """Return the version of the memory that plans point to."""
        return self.inputs.generation, self.state.table.generation, self.memory.layout, len(self.state.pending)

    def _owned(self, rows: Rows) -> list[Array]:
        return [*self.state.arrays(), *rows.arrays(), *self.inputs.arrays()]

    def _custom_classes(self) -> list[str]:
        """Return the names of the classes in a step that bnengine does not define."""
        state = self.state
        return custom_classes([*(layer for _, layer in walk(self.network.layers)), state.loss, state.optimizer])

    @property
    def plans(self) -> dict[Hashable, Plan]:
        """The recorded steps, by what they depend on."""
        return self._replays.plans

    def modes(self) -> list[ReplayInfo]:
        """Return how recorded steps run: as one graph or native call, launch by launch, or op by op, and why."""
        return self._replays.modes()

    def schedule(self, rates: Sequence[float]) -> None:
        """Set the learning rates of the next successful steps; the last one stays. It reads the step count."""
        self.state.schedule(rates)

    def totals(self) -> Totals:
        """Read the means over the epoch's successful steps; it waits for the device."""
        return self.state.totals()

    def report(self) -> Report:
        """Read loss, norm and counters of the last step; it waits for the device."""
        return self.state.report()

    def state_dict(self) -> dict[str, np.ndarray]:
        """Return optimizer state, counters and averages as named NumPy arrays, which resuming needs."""
        return self.state.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Load what `state_dict` returned, all or nothing; InputError if an entry is missing, unknown or misshapen."""
        self.state.load_state_dict(state)
