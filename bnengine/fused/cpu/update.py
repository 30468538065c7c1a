"""What ends an optimizer step: judge, the optimizers' rules, averages and counts. Flat arrays are cut anywhere."""

from typing import Any

import numpy as np

from ..._typing import Array
from ...ops.judge import Verdict
from ...ops.update import AdamState, Advanced, Ranges, RmspropState, SgdState
from ...runtime.memory import Outputs
from ...runtime.plan import ROWS
from .._launch import absent
from ._launch import Cut, cut_flat, kernel, output, ready

CHUNK = 4096  # gradients that have one sum of squares


def judge(
    to: Outputs, loss: Array, gradients: Array, proposals: Array, scaling: Array | None = None, *,
    clip: float | None = None, growth: float = 2.0, backoff: float = 0.5, every: int = 2000,
) -> Verdict:  # fmt: skip
    """Sums over chunks of gradients and proposals; ok, norm, factor and the next loss scale from them."""
    gradients, proposals = ready(to, gradients), ready(to, proposals, np.float64)
    dtype = gradients.dtype
    loss, scaling = ready(to, loss, dtype), ready(to, scaling, dtype)
    out = [output(to, n, (1,), d, gradients) for n, d in (("ok", np.bool_), ("norm", np.float64), ("factor", dtype))]
    new = output(to, "scaling", (4,), dtype, gradients, there=scaling is not None)
    chunks = max(1, -(-gradients.size // CHUNK))
    of_proposals = -(-proposals.size // chunks)
    blocks = min(chunks, cut_flat(gradients.size, gradients.itemsize).blocks)
    partial = to.array("sums of chunks", (chunks, 2), np.float64, gradients)
    to.launch(
        kernel("judge_chunks", gradients, cut=Cut(ROWS, chunks, 1, blocks)),
        whole=(gradients, proposals),
        writes=(partial,),
        scalars=(gradients.size, CHUNK, proposals.size, of_proposals),
        split=ROWS,
    )
    to.launch(
        kernel("judge", gradients),
        reads=(loss, partial, scaling),
        writes=(*out, new),
        scalars=(chunks, int(every), float("inf") if clip is None else float(clip), float(growth), float(backoff)),
    )
    return Verdict(*out)._replace(scaling=new)


def sgd(
    to: Outputs, parameters: Array, gradients: Array, velocity: Array | None,
    table: Array, counters: Array, ok: Array, factor: Array, shadow: Array | None = None, *,
    border: int, momentum: float = 0.0, nesterov: bool = False, weight_decay: float = 0.0, frozen: Ranges = (),
) -> SgdState:  # fmt: skip
    """Plain, with momentum, or Nesterov's."""
    slots, settings = {"velocity": velocity}, (weight_decay, momentum)
    return SgdState(*_update(to, "sgd", parameters, gradients, slots, (table, counters, ok, factor), shadow, border,
                             frozen, nesterov, settings))  # fmt: skip


def rmsprop(
    to: Outputs, parameters: Array, gradients: Array, square: Array, mean: Array | None, velocity: Array | None,
    table: Array, counters: Array, ok: Array, factor: Array, shadow: Array | None = None, *,
    border: int, rho: float = 0.99, eps: float = 1e-8, eps_inside: bool = False,
    momentum: float = 0.0, weight_decay: float = 0.0, frozen: Ranges = (),
) -> RmspropState:  # fmt: skip
    """Plain, centred, with momentum, eps inside the root or beside it."""
    slots = {"square": square, "mean": mean, "velocity": velocity}
    settings = (weight_decay, rho, eps, momentum)
    return RmspropState(*_update(to, "rmsprop", parameters, gradients, slots, (table, counters, ok, factor), shadow,
                                 border, frozen, eps_inside, settings))  # fmt: skip


def adam(
    to: Outputs, parameters: Array, gradients: Array, m: Array, v: Array, largest: Array | None,
    table: Array, counters: Array, ok: Array, factor: Array, shadow: Array | None = None, *,
    border: int, beta1: float = 0.9, beta2: float = 0.999, eps: float = 1e-8,
    weight_decay: float = 0.0, decoupled: bool = False, frozen: Ranges = (),
) -> AdamState:  # fmt: skip
    """Adam, AMSGrad, AdamW."""
    slots = {"m": m, "v": v, "largest": largest}
    settings = (weight_decay, beta1, beta2, eps)
    return AdamState(*_update(to, "adam", parameters, gradients, slots, (table, counters, ok, factor), shadow, border,
                              frozen, decoupled, settings))  # fmt: skip


def _update(
    to: Outputs, rule: str, parameters: Array, gradients: Array, slots: dict[str, Array | None],
    control: tuple[Array, Array, Array, Array], shadow: Array | None, border: int, frozen: Ranges, flag: bool,
    settings: tuple[float, ...],
) -> list[Any]:  # fmt: skip
    """One launch over the flat buffers: the new parameters, slots and shadow, None for one that is not there."""
    dtype = parameters.dtype
    table, counters, ok, factor = control
    control = (
        ready(to, table, dtype), ready(to, counters, np.int64), ready(to, ok, np.bool_), ready(to, factor, dtype)
    )  # fmt: skip
    reads = [ready(to, a, dtype) for a in (parameters, gradients, *slots.values())]
    old = {"parameters": parameters, **slots}
    writes = [None if a is None else output(to, name, a.shape, dtype, parameters) for name, a in old.items()]
    absent(to, *(name for name, a in old.items() if a is None))
    along = cut_flat(parameters.size, parameters.itemsize)
    ranges = sorted((int(begin), int(end)) for begin, end in frozen)
    numbers = (table.shape[0], int(border), int(flag), len(ranges), *(end for pair in ranges for end in pair))
    run = kernel(rule, parameters, cut=along)
    to.launch(
        run, whole=control, reads=reads, writes=writes, scalars=(*numbers, *map(float, settings)), split=along.split
    )
    return [*writes, _shadowed(to, shadow, ok, writes[0])]


def _shadowed(to: Outputs, shadow: Array | None, ok: Array, parameters: Array) -> Array | None:
    """The shadow of the new parameters, by a launch of NumPy's own: in 16 bits no op runs on native kernels."""
    if shadow is None:
        absent(to, "shadow")
        return None
    out = output(to, "shadow", shadow.shape, shadow.dtype, shadow)
    to.launch(rounded, reads=(ok, parameters, shadow), writes=(out,))
    return out


def rounded(ok: Array, parameters: Array, shadow: Array, out: Array) -> None:
    """A launch of NumPy's own: `parameters` in the dtype of `out` where ok, else the old shadow."""
    with np.errstate(over="ignore"):
        out[...] = parameters if ok[0] else shadow


def average(to: Outputs, averaged: Array, values: Array, ok: Array, *, decay: float) -> Array:
    """a <- decay a + (1 - decay) values, where ok."""
    averaged, ok = ready(to, averaged), ready(to, ok, np.bool_)
    values = ready(to, values, averaged.dtype)
    out = output(to, "out", averaged.shape, averaged.dtype, averaged)
    along = cut_flat(averaged.size, averaged.itemsize)
    reads, writes = (averaged.reshape(-1), values.reshape(-1)), (out.reshape(-1),)
    run = kernel("average", averaged, cut=along)
    to.launch(run, whole=(ok,), reads=reads, writes=writes, scalars=(float(decay),), split=along.split)
    return out


def advance(to: Outputs, counters: Array, ok: Array, cursor: Array | None = None, *, rows: int = 0) -> Advanced:
    """The counters and the cursor after one more step."""
    ok, counters, cursor = ready(to, ok, np.bool_), ready(to, counters, np.int64), ready(to, cursor, np.int64)
    if cursor is None:
        absent(to, "cursor")
    given = {"counters": counters, "cursor": cursor}
    out = Advanced(**{f: None if a is None else output(to, f, a.shape, np.int64, a) for f, a in given.items()})
    to.launch(kernel("advance"), reads=(ok, counters, cursor), writes=out, scalars=(int(rows),))
    return out


def tally(to: Outputs, sums: Array, value: Array, normaliser: Array, hits: Array, ok: Array, *, rows: int) -> Array:
    """The sums of an epoch so far."""
    value, ok = ready(to, value), ready(to, ok, np.bool_)
    normaliser = ready(to, normaliser, value.dtype)
    hits, sums = ready(to, hits, np.float64), ready(to, sums, np.float64)
    out = output(to, "out", sums.shape, np.float64, sums)
    run = kernel("tally", value)
    to.launch(run, reads=(value, normaliser, hits, ok, sums), writes=(out,), scalars=(int(rows),))
    return out
