"""Batch normalisation: moments, normalize and its way back, and what becomes of running statistics."""

from typing import Any

import numpy as np

from ... import ops
from ..._typing import Array
from ...ops.activations import ACTIVATIONS, slope_of
from ...ops.batch_norm import BatchNormalized, NormalizeGradients
from ...ops.statistics import Moments
from ...runtime.memory import Outputs
from .._launch import extent
from ._launch import (
    Kernel,
    activation_name,
    arithmetic,
    flat_grid,
    output,
    ready,
    shared_memory,
    slice_width,
    sliced_grid,
    statistics_of,
    vector_of,
    version,
)
from ._launch import storage as storage_of

FORWARD, BACKWARD = "batch_norm.cu", "batch_norm_backward.cu"
OWN_SHARED = 16 << 10  # bytes of shared memory, at most, that a kernel has beside the slice it keeps
ROUNDS = 3  # of loads that a block may wait for one after the other, to save a launch

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
    "commit",
    whole="ok:bool",
    reads="running:double pending:double decay:double unbiased:bool",
    writes="out:double",
    integers="channels",
    file=FORWARD,
)
MERGE = Kernel("merge_statistics", reads="a:double b:double", writes="out:double", integers="channels", file=FORWARD)


def on_chip(x: Array, vector: int, kept: int) -> bool:
    """Whether one launch does it all, a block a slice of channels that keeps `kept` bytes on the chip.

    One launch saves another, and the second pass over memory, but it cannot split the rows: where slices are few, most
    of the device is idle. So it is taken where the rows would hardly be split anyway, either because the slices alone
    fill the device or because the rows are few: a round of loads that others could have shared takes less than a
    microsecond, a second launch one or two.
    """
    splits = sliced_grid(x, *extent(x), vector, sums=True)[1]
    return splits <= ROUNDS and kept + OWN_SHARED <= shared_memory(x)


@version(ops.moments)
def moments(to: Outputs, x: Array) -> Moments:
    """(count, mean, var) of the batch; the pending statistics is the same array unless it has a destination."""
    x = ready(to, x)
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
    (rows, channels), vector = extent(x), vector_of(x, x.shape[-1], x)
    grid = sliced_grid(x, rows, channels, vector, sums=True)
    MOMENTS(
        to, x, storage_of(x), vector, grid=grid, groups=grid[0], x=x, batch=batch, pending=pending,
        partial=((grid[1], 3, channels), np.float64), rows=rows, channels=channels, stride=stride,
        adds=to.adds("pending"),
    )  # fmt: skip


@version(ops.normalize)
def normalize(
    to: Outputs, x: Array, statistics: Array, gamma: Array | None, beta: Array | None, add: Array | None,
    eps: float, activation: str, slope: float | None
) -> Array:  # fmt: skip
    """y = g(((x - hi) - lo) inv_std gamma + beta + add)."""
    x, gamma, beta, add = _given(to, x, gamma, beta, add)
    y = output(to, "out", x.shape, x.dtype, x)
    _normalize(to, y, x, statistics_of(to, statistics), gamma, beta, add, eps, activation, slope)
    return y


def _given(to: Outputs, x: Array, gamma: Array | None, beta: Array | None, add: Array | None) -> tuple[Any, ...]:
    x, wide = ready(to, x), arithmetic(x)
    return x, ready(to, gamma, wide), ready(to, beta, wide), ready(to, add, x.dtype)


def _normalize(
    to: Outputs, y: Array, x: Array, statistics: tuple[Array, int], gamma: Array | None, beta: Array | None,
    add: Array | None, eps: float, activation: str, slope: float | None,
) -> None:  # fmt: skip
    (rows, channels), (held, stride) = extent(x), statistics
    vector = vector_of(x, channels, x, add, y)
    name = storage_of(x), vector, activation_name(activation)
    grid = sliced_grid(x, rows, channels, vector, sums=False)
    of_channels = {"statistics": held, "gamma": gamma, "beta": beta}
    sizes: dict[str, Any] = {"rows": rows, "channels": channels, "stride": stride, "eps": eps}
    slope = slope_of(activation, slope)
    NORMALIZE(to, x, *name, grid=grid, **of_channels, x=x, add=add, y=y, **sizes, slope=slope)


@version(ops.batch_norm)
def batch_norm(
    to: Outputs, x: Array, gamma: Array | None, beta: Array | None, add: Array | None, eps: float, activation: str,
    slope: float | None
) -> BatchNormalized:  # fmt: skip
    """Moments and y in one launch where a slice of channels is kept on the chip, else in two."""
    x, gamma, beta, add = _given(to, x, gamma, beta, add)
    rows, channels = extent(x)
    y = output(to, "y", x.shape, x.dtype, x)
    batch, pending, stride = _statistics(to, x)
    vector = vector_of(x, channels, x, add, y)
    kept = rows * slice_width(vector) * x.itemsize
    if on_chip(x, vector, kept):
        name, grid = (storage_of(x), vector, activation_name(activation)), (-(-channels // slice_width(vector)),)
        BATCH_NORM(
            to, x, *name, grid=grid, shared=kept, gamma=gamma, beta=beta, x=x, add=add, batch=batch,
            pending=pending, y=y, rows=rows, channels=channels, stride=stride, eps=eps,
            slope=slope_of(activation, slope), adds=to.adds("pending"),
        )  # fmt: skip
    else:
        _moments(to, x, batch, pending, stride)
        _normalize(to, y, x, (batch, channels), gamma, beta, add, eps, activation, slope)
    return BatchNormalized(y, batch, batch if pending is None else pending)


@version(ops.normalize_backward)
def normalize_backward(
    to: Outputs, dy: Array, x: Array, y: Array, statistics: Array, gamma: Array | None, beta: Array | None,
    add: Array | None, eps: float, activation: str, slope: float | None, batch_statistics: bool
) -> NormalizeGradients:  # fmt: skip
    """All gradients in one launch where a slice of channels fits on the chip, else in two."""
    x = ready(to, x)
    dy = ready(to, dy, x.dtype)
    has_add, reads = add is not None, ACTIVATIONS[activation].reads
    y = ready(to, y, x.dtype) if reads == "y" else None
    add = ready(to, add, x.dtype) if reads == "z" else None
    wide = arithmetic(x)
    gamma, beta = ready(to, gamma, wide), ready(to, beta, wide)
    statistics, stride = statistics_of(to, statistics)
    rows, channels = extent(x)
    dgamma, dbeta = (
        output(to, name, (channels,), wide, x, there=a is not None) for name, a in (("dgamma", gamma), ("dbeta", beta))
    )
    dx = output(to, "dx", x.shape, x.dtype, x)
    dadd = output(to, "dadd", x.shape, x.dtype, x, there=has_add)

    vector = vector_of(x, channels, dy, x, y, add, dx, dadd)
    name = storage_of(x), vector, activation_name(activation)
    given = {
        "statistics": statistics, "gamma": gamma, "beta": beta, "dy": dy, "x": x, "y": y, "add": add, "rows": rows,
        "channels": channels, "stride": stride, "eps": eps, "slope": slope_of(activation, slope),
    }  # fmt: skip
    to_rows = {"dx": dx, "dadd": dadd, "adds_dx": to.adds("dx"), "batch_statistics": batch_statistics}
    to_channels = {
        "dgamma": dgamma, "dbeta": dbeta, "adds_dgamma": to.adds("dgamma"), "adds_dbeta": to.adds("dbeta")
    }  # fmt: skip
    kept = rows * slice_width(vector) * (x.itemsize + np.dtype(wide).itemsize)
    if on_chip(x, vector, kept):  # one launch, a block a slice of channels, whose x and dz stay in shared memory
        grid = (-(-channels // slice_width(vector)),)
        GRADIENTS(to, x, *name, grid=grid, shared=kept, **given, **to_rows, **to_channels)
    else:
        _sums_first(to, name, given, to_rows, to_channels)
    return NormalizeGradients(dx, dadd, dgamma, dbeta)


def _sums_first(
    to: Outputs, name: tuple[Any, ...], given: dict[str, Any], to_rows: dict[str, Any], to_channels: dict[str, Any]
) -> None:
    """The sums over the rows, dgamma and dbeta in one launch, dx and dadd in another."""
    x, rows, channels, vector = given["x"], given["rows"], given["channels"], name[1]
    sums = to.array("sums", (2, channels), np.float64, x)
    slices, splits = grid = sliced_grid(x, rows, channels, vector, sums=True)
    partial = (splits, 2, channels), np.float64
    SUMS(to, x, *name, grid=grid, groups=slices, **given, **to_channels, sums=sums, partial=partial)
    grid = sliced_grid(x, rows, channels, vector, sums=False)
    BATCH_NORM_BACKWARD(to, x, *name, grid=grid, **given, **to_rows, sums=sums)


@version(ops.commit)
def commit(to: Outputs, running: Array, pending: Array, ok: Array, decay: Array, unbiased: Array) -> Array:
    """Running statistics after a step; where ok is false the old ones, bit for bit."""
    ok, unbiased = ready(to, ok, np.bool_), ready(to, unbiased, np.bool_)
    running, pending, decay = (ready(to, a, np.float64) for a in (running, pending, decay))
    out = output(to, "out", running.shape, np.float64, running)
    channels = int(running.shape[1])
    arrays = {"running": running, "pending": pending, "decay": decay, "unbiased": unbiased, "out": out}
    COMMIT(to, running, grid=flat_grid(running, channels), ok=ok, **arrays, channels=channels)
    return out


@version(ops.merge)
def merge(to: Outputs, a: Array, b: Array) -> Array:
    """Statistics of the union of two samples."""
    a, b = ready(to, a, np.float64), ready(to, b, np.float64)
    out = output(to, "out", a.shape, np.float64, a)
    channels = int(a.shape[1])
    MERGE(to, a, grid=flat_grid(a, channels), a=a, b=b, out=out, channels=channels)
    return out
