"""Batch normalization: moments, normalize and its derivative, running statistics.

By columns, one launch does everything and shares its columns with the product before it. Where rows are too many and
columns would not stay in the cache, they are cut: partial results of fixed blocks of rows, a launch that merges them,
and one that goes over the rows again, from those that were seen last.
"""

from typing import Any, NamedTuple

import numpy as np

from ... import ops
from ..._typing import Array
from ...runtime.memory import Outputs
from ...runtime.plan import ROWS
from .._arguments import Call
from ._launch import MOST_BLOCKS, Cut, Kernel, cut, cut_columns, evenly, launches, version

HELD = 16  # rows that share a mean: kHeld of kernels/cpu/batch_norm.h
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
def moments(to: Outputs, call: Call) -> None:
    """(count, mean, var) of the batch."""
    x, channels = call.x, call.channels
    along = _along(call.rows, channels, x.itemsize)
    scratch = _scratch(channels, along)
    if along.by_columns:
        MOMENTS(to, call, along=along, scratch=scratch)
        return
    blocks = _blocks(x)
    partial = to.array("partial moments", (blocks.number, 3, channels), np.float64, x)
    MOMENTS_OF_BLOCKS(to, call, along=blocks.cut, scratch=scratch, partial=partial, block=blocks.rows)
    along = cut_columns(3 * blocks.number, channels, 8)
    MOMENTS_OF_ALL(to, call, along=along, partial=partial, block=blocks.rows)


@version(ops.normalize)
def normalize(to: Outputs, call: Call, **given: Any) -> None:
    """y = g(((x - hi) - lo) inv_std gamma + beta + add)."""
    along = _along(call.rows, call.channels, call.x.itemsize)
    NORMALIZE(
        to, call, call.activation, along=along, scratch=_scratch(call.channels, along), by_columns=along.by_columns,
        past=not along.by_columns and call.y.nbytes >= PAST, **given,
    )  # fmt: skip


@version(ops.batch_norm)
def batch_norm(to: Outputs, call: Call) -> None:
    """Moments and y in one launch by columns, or in three by rows."""
    along = _along(call.rows, call.channels, call.x.itemsize)
    if along.by_columns:
        BATCH_NORM(to, call, call.activation, along=along, scratch=_scratch(call.channels, along))
    else:
        moments(to, call)
        normalize(to, call, statistics=call.batch, stride=call.channels)


@version(ops.normalize_backward)
def normalize_backward(to: Outputs, call: Call) -> None:
    """All gradients in one launch by columns, or in three by rows."""
    along = _along(call.rows, call.channels, call.x.itemsize)
    how: dict[str, Any] = {"along": along, "scratch": _scratch(call.channels, along)}
    if along.by_columns:
        BATCH_NORM_BACKWARD(to, call, call.activation, **how)
        return
    sums = None
    if call.batch_statistics or call.dgamma is not None or call.dbeta is not None:
        sums = _sums(to, call)
    sums = sums if call.batch_statistics else None
    INPUT_OF_ROWS(to, call, call.activation, **how, sums=sums, past=call.dx.nbytes >= PAST)


def _sums(to: Outputs, call: Call) -> Array:
    """The sums over all rows of dz and of dz x_norm, as (2, channels) doubles; dgamma and dbeta."""
    blocks, channels = _blocks(call.x), call.channels
    partial = to.array("partial sums", (blocks.number, 2, channels), np.float64, call.x)
    how: dict[str, Any] = {"along": blocks.cut, "scratch": _scratch(channels, blocks.cut)}
    SUMS_OF_BLOCKS(to, call, call.activation, **how, partial=partial, block=blocks.rows)
    sums = to.array("sums", (2, channels), np.float64, call.x)
    along = cut_columns(2 * blocks.number, channels, 8)
    SUMS_OF_ALL(to, call, along=along, partial=partial, sums=sums, blocks=blocks.number)
    return sums


def _by_channels(call: Call) -> tuple[tuple[()], dict[str, Cut]]:
    return (), {"along": cut_columns(3, call.channels, 8)}


launches(ops.commit, COMMIT, how=_by_channels)
launches(ops.merge, MERGE, how=_by_channels)
