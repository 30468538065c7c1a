"""Batch normalisation: moments, normalize and its way back, and what becomes of running statistics.

By columns, one launch has them all, and shares its columns with the product before it. Where rows are so many that
columns would not stay in the cache, they are cut: partial results of fixed blocks of rows, a launch that merges them,
and one that goes over the rows again, from those that were seen last.
"""

from typing import Any, NamedTuple

import numpy as np

from ... import ops
from ..._typing import Array
from ...ops.activations import ACTIVATIONS, slope_of
from ...ops.batch_norm import BatchNormalized, NormalizeGradients
from ...ops.statistics import Moments
from ...runtime.memory import Outputs
from ...runtime.plan import ROWS
from .._launch import extent
from ._launch import MOST_BLOCKS, Cut, Kernel, cut, cut_columns, evenly, flat, output, ready, statistics_of, version

HELD = 16  # rows that have a mean of their own: kHeld of kernels/cpu/batch_norm.h
PARTIAL_BYTES = (16 << 10, 256 << 10)  # of x that have a partial result, at least and at most
PARTIAL = 64  # blocks, where that lets them
MOST_PARTIAL = 1024
PAST = 8 << 20  # bytes of an output that is stored past the caches, which do not hold it with x, dy and dx
LEAST_LINES = 4  # of the cache, of each row of a block: nothing is fetched ahead of fewer
LEAST_ROWS = 64  # of a block of rows: each begins with a root and a division for every channel
TILE = 128  # columns, at most, of a block's tile

_STATISTICS = "batch:double pending:double"
_OF_CHANNELS, _OF_ROWS = "statistics:double gamma beta", "dy x y add"
_PROBLEM = {"integers": "rows channels stride", "reals": "eps slope"}

MOMENTS = Kernel("moments", reads="x", writes=_STATISTICS, integers="rows channels stride", flags="adds")
MOMENTS_OF_BLOCKS = Kernel("moments_of_blocks", whole="x", writes="partial:double", integers="rows channels block")
MOMENTS_OF_ALL = Kernel(
    "moments_of_all", whole="partial:double", writes=_STATISTICS, integers="rows channels block stride", flags="adds"
)
NORMALIZE = Kernel(
    "normalize", channels=_OF_CHANNELS, reads="x add", writes="y", flags="by_columns past", **_PROBLEM
)  # fmt: skip
BATCH_NORM = Kernel(
    "batch_norm", channels="gamma beta", reads="x add", writes=f"y {_STATISTICS}", flags="adds", **_PROBLEM
)  # fmt: skip
BATCH_NORM_BACKWARD = Kernel(
    "batch_norm_backward", channels=_OF_CHANNELS, reads=_OF_ROWS, writes="dx dadd dgamma dbeta",
    flags="batch_statistics adds_dx adds_dgamma adds_dbeta", **_PROBLEM,
)  # fmt: skip
SUMS_OF_BLOCKS = Kernel(
    "sums_of_blocks", whole=f"{_OF_CHANNELS} {_OF_ROWS}", writes="partial:double",
    integers="rows channels stride block", reals="eps slope",
)  # fmt: skip
SUMS_OF_ALL = Kernel(
    "sums_of_all", whole="partial:double", writes="sums:double dgamma dbeta", integers="blocks channels",
    flags="adds_dgamma adds_dbeta",
)  # fmt: skip
INPUT_OF_ROWS = Kernel(
    "input_of_rows", whole="sums:double", channels=_OF_CHANNELS, reads=_OF_ROWS, writes="dx dadd",
    flags="adds_dx past", **_PROBLEM,
)  # fmt: skip
COMMIT = Kernel(
    "commit", whole="ok:bool", reads="running:double pending:double decay:double unbiased:bool", writes="out:double",
    integers="channels",
)  # fmt: skip
MERGE = Kernel("merge_statistics", reads="a:double b:double", writes="out:double", integers="channels")


def _scratch(columns: int, along: Cut) -> int:
    """Bytes: 16 numbers a column, and what rounding each of their arrays to lines takes."""
    return 128 * (min(columns, TILE) if along.by_columns else columns) + 1024


def _along(rows: int, channels: int, itemsize: int) -> Cut:
    """How a launch over (rows, channels) is cut; with a product in its group, as that is."""
    along = cut((rows, channels), itemsize)
    if not along.by_columns:
        return along._replace(blocks=min(along.blocks, evenly(rows // LEAST_ROWS)))
    return along._replace(blocks=min(along.blocks, max(2, evenly(channels // (LEAST_LINES * along.unit)))))


class Blocks(NamedTuple):
    """Blocks of rows that have a partial result each."""

    rows: int
    number: int

    @property
    def cut(self) -> Cut:
        return Cut(ROWS, self.number, 1, min(self.number, MOST_BLOCKS))


def _blocks(x: Array) -> Blocks:
    rows, channels = x.shape
    least, most = PARTIAL_BYTES
    size = min(max(x.nbytes // PARTIAL, least), most)
    some = max(size // (channels * x.itemsize), -(-rows // MOST_PARTIAL))
    some = -(-some // HELD) * HELD
    return Blocks(some, -(-rows // some))


@version(ops.moments)
def moments(to: Outputs, x: Array) -> Moments:
    """(count, mean, var) of the batch; the pending statistics is the same array unless it has a destination."""
    x = flat(ready(to, x))
    batch, pending, stride = _statistics(to, x)
    _moments(to, x, batch, pending, stride)
    return Moments(batch, batch if pending is None else pending)


def _statistics(to: Outputs, x: Array) -> tuple[Array, Array | None, int]:
    """The batch's own, the pending statistics if it has a destination, and the elements from row to row there."""
    channels = int(x.shape[-1])
    batch = output(to, "batch", (3, channels), np.float64, x)
    if not to.given("pending"):
        return batch, None, channels
    pending = output(to, "pending", (3, channels), np.float64, x, rows_apart=True)
    return batch, pending, int(pending.strides[0]) // 8


def _moments(to: Outputs, x: Array, batch: Array, pending: Array | None, stride: int) -> None:
    rows, channels = x.shape
    along = _along(rows, channels, x.itemsize)
    scratch = _scratch(channels, along)
    merged = {"batch": batch, "pending": pending, "stride": stride, "adds": to.adds("pending")}
    if along.by_columns:
        MOMENTS(to, x, along=along, scratch=scratch, x=x, rows=rows, channels=channels, **merged)
        return
    blocks = _blocks(x)
    sizes = {"rows": rows, "channels": channels, "block": blocks.rows}
    partial = to.array("partial moments", (blocks.number, 3, channels), np.float64, x)
    MOMENTS_OF_BLOCKS(to, x, along=blocks.cut, scratch=scratch, x=x, partial=partial, **sizes)
    MOMENTS_OF_ALL(to, along=cut_columns(3 * blocks.number, channels, 8), partial=partial, **sizes, **merged)


@version(ops.normalize)
def normalize(
    to: Outputs, x: Array, statistics: Array, gamma: Array | None, beta: Array | None, add: Array | None,
    eps: float, activation: str, slope: float | None
) -> Array:  # fmt: skip
    """y = g(((x - hi) - lo) inv_std gamma + beta + add)."""
    x, gamma, beta, add = _given(to, x, gamma, beta, add)
    y = output(to, "out", x.shape, x.dtype, x)
    _normalize(to, flat(y), flat(x), statistics_of(to, statistics), gamma, beta, flat(add), eps, activation, slope)
    return y


def _given(to: Outputs, x: Array, gamma: Array | None, beta: Array | None, add: Array | None) -> tuple[Any, ...]:
    x = ready(to, x)
    return (x, *(ready(to, a, x.dtype) for a in (gamma, beta, add)))


def _normalize(
    to: Outputs, y: Array, x: Array, statistics: tuple[Array, int], gamma: Array | None, beta: Array | None,
    add: Array | None, eps: float, activation: str, slope: float | None,
) -> None:  # fmt: skip
    (rows, channels), (held, stride) = x.shape, statistics
    along = _along(rows, channels, x.itemsize)
    NORMALIZE(
        to, x, activation, along=along, scratch=_scratch(channels, along), statistics=held, gamma=gamma, beta=beta, x=x,
        add=add, y=y, rows=rows, channels=channels, stride=stride, by_columns=along.by_columns,
        past=not along.by_columns and y.nbytes >= PAST, eps=eps, slope=slope_of(activation, slope),
    )  # fmt: skip


@version(ops.batch_norm)
def batch_norm(
    to: Outputs, x: Array, gamma: Array | None, beta: Array | None, add: Array | None, eps: float, activation: str,
    slope: float | None
) -> BatchNormalized:  # fmt: skip
    """Moments and y in one launch by columns, or in three by rows."""
    x, gamma, beta, add = _given(to, x, gamma, beta, add)
    y = output(to, "y", x.shape, x.dtype, x)
    rows_x, rows_y, rows_add = flat(x), flat(y), flat(add)
    rows, channels = extent(x)
    batch, pending, stride = _statistics(to, x)
    along = _along(rows, channels, x.itemsize)
    if along.by_columns:
        BATCH_NORM(
            to, x, activation, along=along, scratch=_scratch(channels, along), gamma=gamma, beta=beta, x=rows_x,
            add=rows_add, y=rows_y, batch=batch, pending=pending, rows=rows, channels=channels, stride=stride,
            adds=to.adds("pending"), eps=eps, slope=slope_of(activation, slope),
        )  # fmt: skip
    else:
        _moments(to, rows_x, batch, pending, stride)
        _normalize(to, rows_y, rows_x, (batch, channels), gamma, beta, rows_add, eps, activation, slope)
    return BatchNormalized(y, batch, batch if pending is None else pending)


@version(ops.normalize_backward)
def normalize_backward(
    to: Outputs, dy: Array, x: Array, y: Array, statistics: Array, gamma: Array | None, beta: Array | None,
    add: Array | None, eps: float, activation: str, slope: float | None, batch_statistics: bool
) -> NormalizeGradients:  # fmt: skip
    """All gradients in one launch by columns, or in three by rows."""
    x = ready(to, x)
    dy = ready(to, dy, x.dtype)
    has_add, reads = add is not None, ACTIVATIONS[activation].reads
    y = ready(to, y, x.dtype) if reads == "y" else None
    add = ready(to, add, x.dtype) if reads == "z" else None
    gamma, beta = ready(to, gamma, x.dtype), ready(to, beta, x.dtype)
    held, stride = statistics_of(to, statistics)
    rows, channels = extent(x)
    dgamma, dbeta = (
        output(to, n, (channels,), x.dtype, x, there=a is not None) for n, a in (("dgamma", gamma), ("dbeta", beta))
    )
    dx = output(to, "dx", x.shape, x.dtype, x)
    dadd = output(to, "dadd", x.shape, x.dtype, x, there=has_add)

    along = _along(rows, channels, x.itemsize)
    how: dict[str, Any] = {"along": along, "scratch": _scratch(channels, along)}
    given = {
        "statistics": held, "gamma": gamma, "beta": beta, "dy": flat(dy), "x": flat(x), "y": flat(y), "add": flat(add),
        "rows": rows, "channels": channels, "stride": stride, "eps": eps, "slope": slope_of(activation, slope),
    }  # fmt: skip
    to_rows: dict[str, Any] = {"dx": flat(dx), "dadd": flat(dadd), "adds_dx": to.adds("dx")}
    to_channels: dict[str, Any] = {
        "dgamma": dgamma, "dbeta": dbeta, "adds_dgamma": to.adds("dgamma"), "adds_dbeta": to.adds("dbeta")
    }  # fmt: skip
    if along.by_columns:
        own = {**to_rows, **to_channels, "batch_statistics": batch_statistics}
        BATCH_NORM_BACKWARD(to, x, activation, **how, **given, **own)
        return NormalizeGradients(dx, dadd, dgamma, dbeta)
    sums = None
    if batch_statistics or dgamma is not None or dbeta is not None:
        sums = _sums(to, activation, given, to_channels)
    sums = sums if batch_statistics else None
    INPUT_OF_ROWS(to, x, activation, **how, **given, **to_rows, sums=sums, past=dx.nbytes >= PAST)
    return NormalizeGradients(dx, dadd, dgamma, dbeta)


def _sums(to: Outputs, activation: str, given: dict[str, Any], to_channels: dict[str, Any]) -> Array:
    """The sums over all rows of dz and of dz x_norm, as (2, channels) doubles; dgamma and dbeta."""
    x, channels = given["x"], given["channels"]
    blocks = _blocks(x)
    partial = to.array("partial sums", (blocks.number, 2, channels), np.float64, x)
    how: dict[str, Any] = {"along": blocks.cut, "scratch": _scratch(channels, blocks.cut)}
    SUMS_OF_BLOCKS(to, x, activation, **how, **given, partial=partial, block=blocks.rows)
    sums = to.array("sums", (2, channels), np.float64, x)
    along, sizes = cut_columns(2 * blocks.number, channels, 8), {"blocks": blocks.number, "channels": channels}
    SUMS_OF_ALL(to, x, along=along, partial=partial, sums=sums, **sizes, **to_channels)
    return sums


@version(ops.commit)
def commit(to: Outputs, running: Array, pending: Array, ok: Array, decay: Array, unbiased: Array) -> Array:
    """Running statistics after a step; where ok is false the old ones, bit for bit."""
    ok, unbiased = ready(to, ok, np.bool_), ready(to, unbiased, np.bool_)
    running, pending, decay = (ready(to, a, np.float64) for a in (running, pending, decay))
    out = output(to, "out", running.shape, np.float64, running)
    channels = int(running.shape[1])
    arrays = {"running": running, "pending": pending, "decay": decay, "unbiased": unbiased, "out": out}
    COMMIT(to, along=cut_columns(3, channels, 8), ok=ok, **arrays, channels=channels)
    return out


@version(ops.merge)
def merge(to: Outputs, a: Array, b: Array) -> Array:
    """Statistics of the union of two samples."""
    a, b = ready(to, a, np.float64), ready(to, b, np.float64)
    out = output(to, "out", a.shape, np.float64, a)
    channels = int(a.shape[1])
    MERGE(to, along=cut_columns(3, channels, 8), a=a, b=b, out=out, channels=channels)
    return out
