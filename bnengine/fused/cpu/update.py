"""What ends an optimizer step: check_step, the optimizers' rules, averages and counts. Flat arrays are cut anywhere."""

import numpy as np

from ... import ops
from ..._typing import Array
from ...ops.update import RULES
from ...runtime.memory import Outputs
from ...runtime.plan import ROWS
from .._arguments import Call
from .._update import register_rules
from ._launch import DEVICE, Cut, Kernel, cut_flat, launches, version

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


@version(ops.check_step, "int64")
def check_step(to: Outputs, call: Call) -> None:
    """Sums over chunks of gradients and pending statistics; ok, norm, factor and the next loss scale from them."""
    size, pending_size = call.gradients.size, call.pending.size
    chunks = max(1, -(-size // CHUNK))
    along = Cut(ROWS, chunks, 1, min(chunks, cut_flat(size, call.gradients.itemsize).blocks))
    partial = to.array("sums of chunks", (chunks, 2), np.float64, call.gradients)
    CHECK_CHUNKS(
        to, call, along=along, partial=partial, size=size, chunk=CHUNK, proposed=pending_size,
        some=-(-pending_size // chunks),
    )  # fmt: skip
    CHECK_STEP(to, call, partial=partial, chunks=chunks)


def _update(to: Outputs, call: Call) -> None:
    """One launch over the flat buffers, and one that rounds the parameters where they have a 16-bit copy."""
    along = cut_flat(call.parameters.size, call.parameters.itemsize)
    OPTIMIZERS[call.op.name](to, call, along=along)
    if call.new_copy16 is not None:  # NumPy rounds it: native kernels know no 16 bits
        to.launch(rounded, reads=(call.ok, call.new_parameters, call.copy16), writes=(call.new_copy16,))


def rounded(ok: Array, parameters: Array, copy16: Array, out: Array) -> None:
    """A launch of NumPy: `parameters` in the dtype of `out` where ok, else the old 16-bit copy."""
    with np.errstate(over="ignore"):
        out[...] = parameters if ok[0] else copy16


register_rules(DEVICE, _update)


launches(
    ops.average, AVERAGE, "int64", how=lambda call: ((), {"along": cut_flat(call.size, call.averaged.itemsize)})
)  # fmt: skip
launches(ops.count_step, COUNT_STEP, "int64")
launches(ops.add_epoch_sums, ADD_EPOCH_SUMS, "int64")
