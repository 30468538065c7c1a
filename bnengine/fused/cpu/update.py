"""What ends an optimizer step: check_step, the optimizers' rules, averages and counts. Flat arrays are cut anywhere."""

from collections.abc import Callable
from typing import Any

import numpy as np

from ... import ops
from ..._typing import Array
from ...ops.check_step import StepCheck
from ...ops.update import RULES, Advanced, Ranges, Rule
from ...runtime.memory import Outputs
from ...runtime.op import Launcher, Op
from ...runtime.plan import ROWS
from .._launch import absent
from .._update import of_rules
from ._launch import Cut, Kernel, cut_flat, output, ready, version

CHUNK = 4096  # gradients that have one sum of squares

CHECK_CHUNKS = Kernel(
    "check_chunks", whole="gradients pending:double", writes="partial:double", integers="size chunk proposed some"
)  # fmt: skip
CHECK_STEP = Kernel(
    "check_step", reads="loss partial:double scaling", writes="ok:bool norm:double factor new_scaling",
    integers="chunks every", reals="clip growth backoff",
)  # fmt: skip
AVERAGE = Kernel("average", whole="ok:bool", reads="averaged values", writes="out", reals="decay")
COUNT_STEP = Kernel(
    "count_step", reads="ok:bool counters:index cursor:index", writes="new_counters:index new_cursor:index",
    integers="rows",
)  # fmt: skip
ADD_EPOCH_SUMS = Kernel(
    "add_epoch_sums", reads="value divisor correct:double ok:bool sums:double", writes="out:double", integers="rows"
)  # fmt: skip
OPTIMIZERS = {
    rule.name: Kernel(
        rule.name, whole="table counters:index ok:bool factor",
        reads=f"parameters gradients slots={'+'.join(rule.slots)}",
        writes=f"new_parameters new_slots={'+'.join(rule.slots)}", integers="rows columns decay_end",
        flags=f"decoupled flags={'+'.join(rule.names(bool))}", ranges="frozen",
        reals=f"weight_decay settings={'+'.join(rule.names(float))}",
    )
    for rule in RULES.values()
}  # fmt: skip


def _version(op: Op[Any]) -> Callable[[Launcher], Launcher]:
    return version(op, "int64")  # counters are whole numbers


@_version(ops.check_step)
def check_step(
    to: Outputs, loss: Array, gradients: Array, pending: Array, scaling: Array | None,
    clip: float | None, growth: float, backoff: float, every: int,
) -> StepCheck:  # fmt: skip
    """Sums over chunks of gradients and pending statistics; ok, norm, factor and the next loss scale from them."""
    gradients, pending = ready(to, gradients), ready(to, pending, np.float64)
    dtype = gradients.dtype
    loss, scaling = ready(to, loss, dtype), ready(to, scaling, dtype)
    out = [output(to, n, (1,), d, gradients) for n, d in (("ok", np.bool_), ("norm", np.float64), ("factor", dtype))]
    new = output(to, "scaling", (4,), dtype, gradients, there=scaling is not None)
    chunks = max(1, -(-gradients.size // CHUNK))
    of_proposals = -(-pending.size // chunks)
    blocks = min(chunks, cut_flat(gradients.size, gradients.itemsize).blocks)
    partial = to.array("sums of chunks", (chunks, 2), np.float64, gradients)
    CHECK_CHUNKS(
        to, gradients, along=Cut(ROWS, chunks, 1, blocks), gradients=gradients, pending=pending, partial=partial,
        size=gradients.size, chunk=CHUNK, proposed=pending.size, some=of_proposals,
    )  # fmt: skip
    verdict = StepCheck(*out)._replace(scaling=new)
    CHECK_STEP(
        to, gradients, loss=loss, partial=partial, scaling=scaling, ok=verdict.ok, norm=verdict.norm,
        factor=verdict.factor, new_scaling=new, chunks=chunks, every=every,
        clip=float("inf") if clip is None else clip, growth=growth, backoff=backoff,
    )  # fmt: skip
    return verdict


def _update(
    to: Outputs, rule: Rule, *args: Any, decay_end: int, weight_decay: float = 0.0, decoupled: bool = False,
    frozen: Ranges = (), **settings: Any,
) -> Any:  # fmt: skip
    """One launch over the flat buffers: the new parameters, slots and 16-bit copy, None for one that is not there."""
    call = rule.call(*args)
    rule.check(call, settings)
    dtype, table = call.parameters.dtype, call.table
    old = {"parameters": call.parameters, **dict(zip(rule.slots, call.slots, strict=True))}
    table, counters, ok, factor = (
        ready(to, a, kind)
        for a, kind in ((table, dtype), (call.counters, np.int64), (call.ok, np.bool_), (call.factor, dtype))
    )
    parameters, gradients, *slots = (ready(to, a, dtype) for a in (call.parameters, call.gradients, *call.slots))
    writes = [None if a is None else output(to, name, a.shape, dtype, call.parameters) for name, a in old.items()]
    absent(to, *(name for name, a in old.items() if a is None))
    along = cut_flat(call.parameters.size, call.parameters.itemsize)
    OPTIMIZERS[rule.name](
        to, parameters, along=along, table=table, counters=counters, ok=ok, factor=factor, parameters=parameters,
        gradients=gradients, slots=slots, new_parameters=writes[0], new_slots=writes[1:], rows=table.shape[0],
        columns=table.shape[1], decay_end=decay_end, decoupled=decoupled, flags=rule.flags(settings), frozen=frozen,
        weight_decay=weight_decay, settings=rule.numbers(settings),
    )  # fmt: skip
    return rule.state(*writes, _shadowed(to, call.copy16, call.ok, writes[0]))


of_rules(_version, _update)


def _shadowed(to: Outputs, copy16: Array | None, ok: Array, parameters: Array) -> Array | None:
    """The copy16 of the new parameters, by a launch of NumPy's own: in 16 bits no op runs on native kernels."""
    if copy16 is None:
        absent(to, "copy16")
        return None
    out = output(to, "copy16", copy16.shape, copy16.dtype, copy16)
    to.launch(rounded, reads=(ok, parameters, copy16), writes=(out,))
    return out


def rounded(ok: Array, parameters: Array, copy16: Array, out: Array) -> None:
    """A launch of NumPy's own: `parameters` in the dtype of `out` where ok, else the old 16-bit copy."""
    with np.errstate(over="ignore"):
        out[...] = parameters if ok[0] else copy16


@_version(ops.average)
def average(to: Outputs, averaged: Array, values: Array, ok: Array, decay: float) -> Array:
    """a <- decay a + (1 - decay) values, where ok."""
    averaged, ok = ready(to, averaged), ready(to, ok, np.bool_)
    values = ready(to, values, averaged.dtype)
    out = output(to, "out", averaged.shape, averaged.dtype, averaged)
    along = cut_flat(averaged.size, averaged.itemsize)
    flat = {"averaged": averaged.reshape(-1), "values": values.reshape(-1), "out": out.reshape(-1)}
    AVERAGE(to, averaged, along=along, ok=ok, **flat, decay=decay)
    return out


@_version(ops.count_step)
def count_step(to: Outputs, counters: Array, ok: Array, cursor: Array | None, rows: int) -> Advanced:
    """The counters and the cursor after one more step."""
    ok, counters, cursor = ready(to, ok, np.bool_), ready(to, counters, np.int64), ready(to, cursor, np.int64)
    if cursor is None:
        absent(to, "cursor")
    given = {"counters": counters, "cursor": cursor}
    out = Advanced(**{f: None if a is None else output(to, f, a.shape, np.int64, a) for f, a in given.items()})
    new = {"new_counters": out.counters, "new_cursor": out.cursor}
    COUNT_STEP(to, ok=ok, counters=counters, cursor=cursor, **new, rows=rows)
    return out


@_version(ops.add_epoch_sums)
def add_epoch_sums(
    to: Outputs, sums: Array, value: Array, divisor: Array, correct: Array, ok: Array, rows: int
) -> Array:
    """The sums of an epoch so far."""
    value, ok = ready(to, value), ready(to, ok, np.bool_)
    divisor = ready(to, divisor, value.dtype)
    correct, sums = ready(to, correct, np.float64), ready(to, sums, np.float64)
    out = output(to, "out", sums.shape, np.float64, sums)
    ADD_EPOCH_SUMS(to, value, value=value, divisor=divisor, correct=correct, ok=ok, sums=sums, out=out, rows=rows)
    return out
