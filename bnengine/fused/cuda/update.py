"""What ends an optimizer step: check_step, the optimizers' rules, averages and counts."""

import numpy as np

from ... import ops
from ..._typing import Array
from ...ops.update import RULES, Ranges
from ...runtime.memory import Outputs
from .._arguments import Call, copied
from .._update import register_rules
from . import _load
from ._launch import DEVICE, STORAGES, Kernel, flat, flat_grid, launches, vector_of, version

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


@version(ops.check_step, "int64")
def check_step(to: Outputs, call: Call) -> None:
    """ok, norm, factor and the next loss scale: one pass over gradients and pending statistics."""
    size, pending_size = call.gradients.size, call.pending.size
    vector = vector_of(call.gradients, None, call.gradients)
    grid = flat_grid(call.gradients, max(size // vector, pending_size), waves=4)
    CHECK_STEP(
        to, call, vector, grid=grid, partial=((grid[0], 2), np.float64), pending_size=pending_size
    )  # fmt: skip


def _update(to: Outputs, call: Call) -> None:
    """One launch over the flat buffers.

    Where the step is not ok the 16-bit copy is not written: its destination must hold the old one.
    """
    p, narrow = call.parameters, list[str]()
    if call.copy16 is not None:
        narrow.append(STORAGES[call.copy16.dtype.name])
        if call.new_copy16.data.ptr != call.copy16.data.ptr:
            to.launch(copied, reads=(call.copy16,), writes=(call.new_copy16,))
    arrays = (p, call.gradients, *call.slots, call.new_parameters, *call.new_slots, call.new_copy16)
    vector = vector_of(p, None, *arrays)
    OPTIMIZERS[call.op.name](
        to, call, vector, *narrow, grid=flat_grid(p, p.size, vector), frozen=_ranges(call.frozen, p),
        copy16=call.new_copy16, size=p.size, table_rows=call.rows, table_columns=call.columns,
        frozen_count=len(call.frozen),
    )  # fmt: skip


register_rules(DEVICE, _update)


def _ranges(frozen: Ranges, like: Array) -> Array:
    """What is frozen, as the kernel searches it. It belongs to the plan: other ranges are another plan."""
    key = frozen, like.device.id
    if key not in _uploaded:
        pairs = np.asarray(frozen, dtype=np.int64).reshape(-1, 2) if frozen else np.zeros((1, 2), np.int64)
        with like.device:
            _uploaded[key] = _load.cupy().asarray(pairs)
    return _uploaded[key]


_uploaded: dict[tuple[Ranges, int], Array] = {}


launches(ops.average, AVERAGE, "int64", how=flat("averaged values out"))
launches(ops.count_step, COUNT_STEP, "int64", how=lambda call: ((), {"out": call.new_counters}))
launches(ops.add_epoch_sums, ADD_EPOCH_SUMS, "int64")
