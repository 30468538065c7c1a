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
from ...runtime.plan import COLUMNS, ROWS
from .._launch import extent
from ._launch import MOST_BLOCKS, Cut, cut, cut_columns, evenly, flat, kernel, output, ready, statistics_of, version

HELD = 16  # rows that have a mean of their own: kHeld of kernels/cpu/batch_norm.h
PARTIAL_BYTES = (16 << 10, 256 << 10)  # of x that have a partial result, at least and at most
PARTIAL = 64  # blocks, where that lets them
MOST_PARTIAL = 1024
PAST = 8 << 20  # bytes of an output that is stored past the caches, which do not hold it with x, dy and dx
LEAST_LINES = 4  # of the cache, of each row of a block: nothing is fetched ahead of fewer
LEAST_ROWS = 64  # of a block of rows: each begins with a root and a division for every channel
TILE = 128  # columns, at most, of a block's tile


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
    """(count, mean, var) of the batch; the proposal is the same array unless it has a destination."""
    x = flat(ready(to, x))
    batch, proposal, stride = _statistics(to, x)
    _moments(to, x, batch, proposal, stride)
    return Moments(batch, batch if proposal is None else proposal)


def _statistics(to: Outputs, x: Array) -> tuple[Array, Array | None, int]:
    """The batch's own, the proposal if it has a destination, and the elements from row to row there."""
    channels = int(x.shape[-1])
    batch = output(to, "batch", (3, channels), np.float64, x)
    if not to.given("proposal"):
        return batch, None, channels
    proposal = output(to, "proposal", (3, channels), np.float64, x, rows_apart=True)
    return batch, proposal, int(proposal.strides[0]) // 8


def _moments(to: Outputs, x: Array, batch: Array, proposal: Array | None, stride: int) -> None:
    rows, channels = x.shape
    along, adds = _along(rows, channels, x.itemsize), to.adds("proposal")
    if along.by_columns:
        run = kernel("moments", x, cut=along, scratch=_scratch(channels, along))
        to.launch(run, reads=(x,), writes=(batch, proposal), scalars=(rows, channels, stride, adds), split=COLUMNS)
        return
    blocks = _blocks(x)
    partial = to.array("partial moments", (blocks.number, 3, channels), np.float64, x)
    run = kernel("moments_of_blocks", x, cut=blocks.cut, scratch=_scratch(channels, along))
    to.launch(run, whole=(x,), writes=(partial,), scalars=(rows, channels, blocks.rows), split=ROWS)
    run = kernel("moments_of_all", cut=cut_columns(3 * blocks.number, channels, 8))
    scalars = (rows, channels, blocks.rows, stride, adds)
    to.launch(run, whole=(partial,), writes=(batch, proposal), scalars=scalars, split=COLUMNS)


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
    past = not along.by_columns and y.nbytes >= PAST
    of_channels, of_rows = (held, gamma, beta), (x, add)
    to.launch(
        kernel("normalize", x, activation, cut=along, scratch=_scratch(channels, along)),
        whole=() if along.by_columns else of_channels,
        reads=(*of_channels, *of_rows) if along.by_columns else of_rows,
        writes=(y,),
        scalars=(rows, channels, stride, along.by_columns, past, float(eps), float(slope_of(activation, slope))),
        split=along.split,
    )


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
    batch, proposal, stride = _statistics(to, x)
    along = _along(rows, channels, x.itemsize)
    if along.by_columns:
        to.launch(
            kernel("batch_norm", x, activation, cut=along, scratch=_scratch(channels, along)),
            reads=(gamma, beta, rows_x, rows_add),
            writes=(rows_y, batch, proposal),
            scalars=(rows, channels, stride, to.adds("proposal"), float(eps), float(slope_of(activation, slope))),
            split=COLUMNS,
        )
    else:
        _moments(to, rows_x, batch, proposal, stride)
        _normalize(to, rows_y, rows_x, (batch, channels), gamma, beta, rows_add, eps, activation, slope)
    return BatchNormalized(y, batch, batch if proposal is None else proposal)


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

    of_channels, of_rows = (held, gamma, beta), tuple(map(flat, (dy, x, y, add)))
    common, along = (
        (rows, channels, stride, float(eps), float(slope_of(activation, slope))),
        _along(rows, channels, x.itemsize),
    )
    if along.by_columns:
        adds = tuple(map(to.adds, ("dx", "dgamma", "dbeta")))
        to.launch(
            kernel("batch_norm_backward", x, activation, cut=along, scratch=_scratch(channels, along)),
            reads=(*of_channels, *of_rows),
            writes=(flat(dx), flat(dadd), dgamma, dbeta),
            scalars=(*common, batch_statistics, *adds),
            split=COLUMNS,
        )
        return NormalizeGradients(dx, dadd, dgamma, dbeta)
    sums = None
    if batch_statistics or dgamma is not None or dbeta is not None:
        sums = _sums(to, (*of_channels, *of_rows), dgamma, dbeta, activation, common)
    to.launch(
        kernel("input_of_rows", x, activation, cut=along, scratch=_scratch(channels, along)),
        whole=(sums if batch_statistics else None, *of_channels),
        reads=of_rows,
        writes=(flat(dx), flat(dadd)),
        scalars=(*common, to.adds("dx"), dx.nbytes >= PAST),
        split=ROWS,
    )
    return NormalizeGradients(dx, dadd, dgamma, dbeta)


def _sums(
    to: Outputs, given: tuple[Any, ...], dgamma: Array | None, dbeta: Array | None, activation: str,
    common: tuple[Any, ...],
) -> Array:  # fmt: skip
    """The sums over all rows of dz and of dz x_norm, as (2, channels) doubles; dgamma and dbeta."""
    x = given[4]
    channels, blocks = int(x.shape[1]), _blocks(x)
    partial = to.array("partial sums", (blocks.number, 2, channels), np.float64, x)
    run = kernel("sums_of_blocks", x, activation, cut=blocks.cut, scratch=_scratch(channels, blocks.cut))
    to.launch(run, whole=given, writes=(partial,), scalars=(*common, blocks.rows), split=ROWS)
    sums = to.array("sums", (2, channels), np.float64, x)
    to.launch(
        kernel("sums_of_all", x, cut=cut_columns(2 * blocks.number, channels, 8)),
        whole=(partial,),
        writes=(sums, dgamma, dbeta),
        scalars=(blocks.number, channels, to.adds("dgamma"), to.adds("dbeta")),
        split=COLUMNS,
    )
    return sums


@version(ops.commit)
def commit(to: Outputs, running: Array, proposal: Array, ok: Array, decay: Array, unbiased: Array) -> Array:
    """Running statistics after a step; where ok is false the old ones, bit for bit."""
    ok, unbiased = ready(to, ok, np.bool_), ready(to, unbiased, np.bool_)
    running, proposal, decay = (ready(to, a, np.float64) for a in (running, proposal, decay))
    out = output(to, "out", running.shape, np.float64, running)
    channels = int(running.shape[1])
    run, reads = kernel("commit", cut=cut_columns(3, channels, 8)), (running, proposal, decay, unbiased)
    to.launch(run, whole=(ok,), reads=reads, writes=(out,), scalars=(channels,), split=COLUMNS)
    return out


@version(ops.merge)
def merge(to: Outputs, a: Array, b: Array) -> Array:
    """Statistics of the union of two samples."""
    a, b = ready(to, a, np.float64), ready(to, b, np.float64)
    out = output(to, "out", a.shape, np.float64, a)
    channels = int(a.shape[1])
    run = kernel("merge_statistics", cut=cut_columns(3, channels, 8))
    to.launch(run, reads=(a, b), writes=(out,), scalars=(channels,), split=COLUMNS)
    return out
