"""Batch normalization: moments, normalize and its derivative, running statistics."""

from typing import Any

import numpy as np

from ... import ops
from ..._typing import Array
from ...runtime.memory import Outputs
from .._arguments import Call, extent
from . import _load
from ._launch import (
    Kernel,
    activation_name,
    flat_grid,
    launches,
    slice_width,
    sliced_grid,
    vector_of,
    version,
)

FORWARD, BACKWARD = "batch_norm.cu", "batch_norm_backward.cu"
OWN_SHARED = 16 << 10  # bytes of shared memory, at most, of a kernel in addition to the slice that it keeps
ROUNDS = 3  # of loads that a block may wait for in turn, to save a launch

_FORWARD: dict[str, Any] = {"file": FORWARD, "integers": "rows channels stride"}
_BACKWARD: dict[str, Any] = {"file": BACKWARD, "integers": "rows channels stride", "reals": "eps slope"}
_OF_CHANNELS, _OF_ROWS = "statistics:double gamma:wide beta:wide", "dy x y add"

MOMENTS = Kernel(
    "moments", reads="x", writes="batch:double pending:double", scratch="partial:double",
    counters="arrivals", flags="adds", **_FORWARD,
)  # fmt: skip
NORMALIZE = Kernel("normalize", channels=_OF_CHANNELS, reads="x add", writes="y", reals="eps slope", **_FORWARD)
BATCH_NORM = Kernel(
    "batch_norm", channels="gamma:wide beta:wide", reads="x add",
    writes="batch:double pending:double y", flags="adds", reals="eps slope", **_FORWARD,
)  # fmt: skip
SUMS = Kernel(
    "batch_norm_sums", channels=_OF_CHANNELS, reads=_OF_ROWS,
    writes="dgamma:wide dbeta:wide sums:double", scratch="partial:double", counters="arrivals",
    flags="adds_dgamma adds_dbeta", **_BACKWARD,
)  # fmt: skip
BATCH_NORM_BACKWARD = Kernel(
    "batch_norm_backward", channels=f"{_OF_CHANNELS} sums:double", reads=_OF_ROWS, writes="dx dadd",
    flags="batch_statistics adds_dx", **_BACKWARD,
)  # fmt: skip
GRADIENTS = Kernel(
    "batch_norm_gradients", channels=_OF_CHANNELS, reads=_OF_ROWS, writes="dx dadd dgamma:wide dbeta:wide",
    flags="batch_statistics adds_dx adds_dgamma adds_dbeta", **_BACKWARD,
)  # fmt: skip
COMMIT = Kernel(
    "commit", whole="ok:bool", reads="running:double pending:double decay:double unbiased:bool", writes="out:double",
    integers="channels", file=FORWARD,
)  # fmt: skip
MERGE = Kernel("merge_statistics", reads="a:double b:double", writes="out:double", integers="channels", file=FORWARD)


def on_chip(x: Array, vector: int, kept: int) -> bool:
    """Whether one launch does it all, a block a slice of channels that keeps `kept` bytes on the chip.

    One launch saves another, and the second pass over memory, but it cannot split the rows: where slices are few, most
    of the device is idle. So it is taken where the rows would hardly be split anyway, either because the slices alone
    fill the device or because the rows are few: a round of loads that others could have shared takes less than a
    microsecond, a second launch one or two.
    """
    splits = sliced_grid(x, *extent(x), vector, sums=True)[1]
    return splits <= ROUNDS and kept + OWN_SHARED <= _load.shared_memory(x.device.id)


@version(ops.moments)
def moments(to: Outputs, call: Call) -> None:
    """(count, mean, var) of the batch."""
    vector = vector_of(call.x, call.channels, call.x)
    grid = sliced_grid(call.x, call.rows, call.channels, vector, sums=True)
    partial = (grid[1], 3, call.channels), np.float64
    MOMENTS(to, call, vector, grid=grid, groups=grid[0], partial=partial)


@version(ops.normalize)
def normalize(to: Outputs, call: Call, **given: Any) -> None:
    """y = g(((x - hi) - lo) inv_std gamma + beta + add)."""
    vector = vector_of(call.x, call.channels, call.x, call.add, call.y)
    grid = sliced_grid(call.x, call.rows, call.channels, vector, sums=False)
    NORMALIZE(to, call, vector, activation_name(call.activation), grid=grid, **given)


@version(ops.batch_norm)
def batch_norm(to: Outputs, call: Call) -> None:
    """Moments and y in one launch where a slice of channels is kept on the chip, else in two."""
    vector = vector_of(call.x, call.channels, call.x, call.add, call.y)
    kept = call.rows * slice_width(vector) * call.x.itemsize
    if on_chip(call.x, vector, kept):
        grid = (-(-call.channels // slice_width(vector)),)
        BATCH_NORM(to, call, vector, activation_name(call.activation), grid=grid, shared=kept)
    else:
        moments(to, call)
        normalize(to, call, statistics=call.batch, stride=call.channels)


@version(ops.normalize_backward)
def normalize_backward(to: Outputs, call: Call) -> None:
    """All gradients in one launch where a slice of channels fits on the chip, else in two."""
    rows, channels, x = call.rows, call.channels, call.x
    vector = vector_of(x, channels, call.dy, x, call.y, call.add, call.dx, call.dadd)
    name = vector, activation_name(call.activation)
    kept = rows * slice_width(vector) * (x.itemsize + (8 if x.dtype == np.float64 else 4))  # of x, and of dz
    if on_chip(x, vector, kept):  # one launch, a block a slice of channels, whose x and dz stay in shared memory
        GRADIENTS(to, call, *name, grid=(-(-channels // slice_width(vector)),), shared=kept)
        return
    sums = to.array("sums", (2, channels), np.float64, x)
    slices, splits = grid = sliced_grid(x, rows, channels, vector, sums=True)
    partial = (splits, 2, channels), np.float64
    SUMS(to, call, *name, grid=grid, groups=slices, sums=sums, partial=partial)
    BATCH_NORM_BACKWARD(to, call, *name, grid=sliced_grid(x, rows, channels, vector, sums=False), sums=sums)


def _by_channels(call: Call) -> tuple[tuple[()], dict[str, tuple[int]]]:
    return (), {"grid": flat_grid(call.lead, call.channels)}


launches(ops.commit, COMMIT, how=_by_channels)
launches(ops.merge, MERGE, how=_by_channels)
