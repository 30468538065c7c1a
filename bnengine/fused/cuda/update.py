"""What ends an optimizer step: check_step, the optimizers' rules, averages and counts."""

from collections.abc import Callable
from typing import Any

import numpy as np

from ... import ops
from ..._typing import Array
from ...ops.check_step import StepCheck
from ...ops.update import RULES, Advanced, Ranges, Rule
from ...runtime.memory import Outputs
from ...runtime.op import Launcher, Op
from .._launch import absent, copied
from .._update import of_rules
from . import _load
from ._launch import FULL, Kernel, flat_grid, output, ready, vector_of, version
from ._launch import storage as storage_of

_HERE = {"file": "update.cu", "element": "A"}
CHECK_STEP = Kernel(
    "check_step", reads="loss gradients pending:double scaling", writes="ok:bool norm:double factor new_scaling",
    scratch="partial:double", counters="arrivals", integers="size pending_size every", reals="clip growth backoff",
    **_HERE,
)  # fmt: skip
AVERAGE = Kernel(
    "average", whole="ok:bool", reads="averaged values", writes="out", integers="size", reals="decay", **_HERE
)
COUNT_STEP = Kernel(
    "count_step", reads="ok:bool counters:index cursor:index", writes="out:index new_cursor:index", integers="rows",
    **_HERE,
)  # fmt: skip
ADD_EPOCH_SUMS = Kernel(
    "add_epoch_sums", reads="value divisor correct:double ok:bool sums:double", writes="out:double", integers="rows",
    **_HERE,
)  # fmt: skip
OPTIMIZERS = {
    rule.name: Kernel(
        rule.name, whole="table counters:index ok:bool factor", constants="frozen:index",
        reads=f"parameters gradients slots={'+'.join(rule.slots)}",
        writes=f"new_parameters new_slots={'+'.join(f'new_{slot}' for slot in rule.slots)} copy16:H",
        integers="size table_rows table_columns frozen_count decay_end",
        reals=f"weight_decay settings={'+'.join(rule.names(float))}",
        flags=f"flags={'+'.join(rule.names(bool))} decoupled", **_HERE,
    )
    for rule in RULES.values()
}  # fmt: skip


def _version(op: Op[Any]) -> Callable[[Launcher], Launcher]:
    return version(op, (*FULL, "int64"))  # counters are whole numbers


@_version(ops.check_step)
def check_step(
    to: Outputs, loss: Array, gradients: Array, pending: Array, scaling: Array | None,
    clip: float | None, growth: float, backoff: float, every: int,
) -> StepCheck:  # fmt: skip
    """ok, norm, factor and the next loss scale: one pass over gradients and pending statistics."""
    gradients, pending = ready(to, gradients), ready(to, pending, np.float64)
    loss, scaling = ready(to, loss, gradients.dtype), ready(to, scaling, gradients.dtype)
    kinds = (("ok", np.bool_), ("norm", np.float64), ("factor", gradients.dtype))
    out = [output(to, name, (1,), dtype, gradients) for name, dtype in kinds]
    new = output(to, "scaling", (4,), gradients.dtype, gradients, there=scaling is not None)
    vector = vector_of(gradients, None, gradients)
    grid = flat_grid(gradients, max(gradients.size // vector, pending.size), waves=4)
    CHECK_STEP(
        to, gradients, storage_of(gradients), vector, grid=grid, loss=loss, gradients=gradients, pending=pending,
        scaling=scaling, ok=out[0], norm=out[1], factor=out[2], new_scaling=new, partial=((grid[0], 2), np.float64),
        size=gradients.size, pending_size=pending.size, every=every, clip=float("inf") if clip is None else clip,
        growth=growth, backoff=backoff,
    )  # fmt: skip
    return StepCheck(*out)._replace(scaling=new)


def _update(
    to: Outputs, rule: Rule, *args: Any, decay_end: int, weight_decay: float = 0.0, decoupled: bool = False,
    frozen: Ranges = (), **settings: Any,
) -> Any:  # fmt: skip
    """One launch over the flat buffers: the new parameters, slots and 16-bit copy, None for one that is not there.

    Where the step is not ok the copy16 is not written: it is the one that stands in the destination, or a copy.
    """
    call = rule.call(*args)
    rule.check(call, settings)
    p, dtype = call.parameters, call.parameters.dtype
    old = {"parameters": p, **dict(zip(rule.slots, call.slots, strict=True))}
    table, counters, ok, factor = (
        ready(to, a, kind)
        for a, kind in ((call.table, dtype), (call.counters, np.int64), (call.ok, np.bool_), (call.factor, dtype))
    )
    parameters, gradients, *slots = (ready(to, a, dtype) for a in (p, call.gradients, *call.slots))
    writes = [None if a is None else output(to, name, a.shape, dtype, p) for name, a in old.items()]
    absent(to, *(name for name, a in old.items() if a is None))
    writes.append(_shadow(to, call.copy16))
    vector = vector_of(p, None, parameters, gradients, *slots, *writes)
    narrow = () if call.copy16 is None else (storage_of(call.copy16),)
    OPTIMIZERS[rule.name](
        to, p, storage_of(p), vector, *narrow, grid=flat_grid(p, p.size, vector), table=table, counters=counters, ok=ok,
        factor=factor, frozen=_ranges(frozen, p), parameters=parameters, gradients=gradients, slots=slots,
        new_parameters=writes[0], new_slots=writes[1:-1], copy16=writes[-1], size=p.size, table_rows=table.shape[0],
        table_columns=table.shape[1], frozen_count=len(frozen), decay_end=decay_end, weight_decay=weight_decay,
        settings=rule.numbers(settings), flags=rule.flags(settings), decoupled=decoupled,
    )  # fmt: skip
    return rule.state(*writes)


of_rules(_version, _update)


def _shadow(to: Outputs, copy16: Array | None) -> Array | None:
    """Where the 16-bit copy goes, holding what it is where the step is not ok."""
    if copy16 is None:
        absent(to, "copy16")
        return None
    out = output(to, "copy16", copy16.shape, copy16.dtype, copy16)
    if out.data.ptr != copy16.data.ptr:
        to.launch(copied, reads=(copy16,), writes=(out,))
    return out


def _ranges(frozen: Ranges, like: Array) -> Array:
    """What is frozen, as the kernel searches it. It belongs to the kernel: a change of it is another plan."""
    key = frozen, like.device.id
    if key not in _uploaded:
        pairs = np.asarray(frozen, dtype=np.int64).reshape(-1, 2) if frozen else np.zeros((1, 2), np.int64)
        with like.device:
            _uploaded[key] = _load.cupy().asarray(pairs)
    return _uploaded[key]


_uploaded: dict[tuple[Ranges, int], Array] = {}


@_version(ops.average)
def average(to: Outputs, averaged: Array, values: Array, ok: Array, decay: float) -> Array:
    """a <- decay a + (1 - decay) values, where ok."""
    averaged, ok = ready(to, averaged), ready(to, ok, np.bool_)
    values = ready(to, values, averaged.dtype)
    out = output(to, "out", averaged.shape, averaged.dtype, averaged)
    vector = vector_of(averaged, None, averaged, values, out)
    grid, arrays = flat_grid(averaged, averaged.size, vector), {"averaged": averaged, "values": values, "out": out}
    AVERAGE(to, averaged, storage_of(averaged), vector, grid=grid, ok=ok, **arrays, size=averaged.size, decay=decay)
    return out


@_version(ops.count_step)
def count_step(to: Outputs, counters: Array, ok: Array, cursor: Array | None, rows: int) -> Advanced:
    """The counters and the cursor after one more step."""
    ok, counters, cursor = ready(to, ok, np.bool_), ready(to, counters, np.int64), ready(to, cursor, np.int64)
    if cursor is None:
        absent(to, "cursor")
    given = {"counters": counters, "cursor": cursor}
    out = Advanced(**{f: None if a is None else output(to, f, a.shape, np.int64, a) for f, a in given.items()})
    new = {"out": out.counters, "new_cursor": out.cursor}
    COUNT_STEP(to, counters, ok=ok, counters=counters, cursor=cursor, **new, rows=rows)
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
    given = {"value": value, "divisor": divisor, "correct": correct, "ok": ok, "sums": sums, "out": out, "rows": rows}
    ADD_EPOCH_SUMS(to, sums, storage_of(value), **given)
    return out
