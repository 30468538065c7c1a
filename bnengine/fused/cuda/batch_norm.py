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
    activation_name,
    arithmetic,
    arrivals,
    flags,
    flat_grid,
    indices,
    kernel,
    output,
    ready,
    reals,
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
    """(count, mean, var) of the batch; the proposal is the same array unless it has a destination."""
    x = ready(to, x)
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
    (rows, channels), vector = extent(x), vector_of(x, x.shape[-1], x)
    grid = sliced_grid(x, rows, channels, vector, sums=True)
    run = kernel(
        x, FORWARD, "moments", storage_of(x), vector, grid=grid, bound=((4, arrivals(x, grid[0])),)
    )  # behind x, batch, proposal and the partial moments
    to.launch(
        run,
        reads=(x,),
        writes=(batch, proposal),
        scratch=(((grid[1], 3, channels), np.float64),),
        scalars=(*indices(rows, channels, stride), *flags(to.adds("proposal"))),
    )


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
    run = kernel(x, FORWARD, "normalize", *name, grid=sliced_grid(x, rows, channels, vector, sums=False))
    scalars = (*indices(rows, channels, stride), *reals(eps, slope_of(activation, slope)))
    to.launch(run, whole=(held, gamma, beta), reads=(x, add), writes=(y,), scalars=scalars)


@version(ops.batch_norm)
def batch_norm(
    to: Outputs, x: Array, gamma: Array | None, beta: Array | None, add: Array | None, eps: float, activation: str,
    slope: float | None
) -> BatchNormalized:  # fmt: skip
    """Moments and y in one launch where a slice of channels is kept on the chip, else in two."""
    x, gamma, beta, add = _given(to, x, gamma, beta, add)
    rows, channels = extent(x)
    y = output(to, "y", x.shape, x.dtype, x)
    batch, proposal, stride = _statistics(to, x)
    vector = vector_of(x, channels, x, add, y)
    kept = rows * slice_width(vector) * x.itemsize
    if on_chip(x, vector, kept):
        name, grid = (storage_of(x), vector, activation_name(activation)), (-(-channels // slice_width(vector)),)
        to.launch(
            kernel(x, FORWARD, "batch_norm", *name, grid=grid, shared=kept),
            whole=(gamma, beta),
            reads=(x, add),
            writes=(batch, proposal, y),
            scalars=(
                *indices(rows, channels, stride),
                *reals(eps, slope_of(activation, slope)),
                *flags(to.adds("proposal")),
            ),
        )
    else:
        _moments(to, x, batch, proposal, stride)
        _normalize(to, y, x, (batch, channels), gamma, beta, add, eps, activation, slope)
    return BatchNormalized(y, batch, batch if proposal is None else proposal)


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

    given = {"whole": (statistics, gamma, beta), "reads": (dy, x, y, add)}
    vector = vector_of(x, channels, dy, x, y, add, dx, dadd)
    name = storage_of(x), vector, activation_name(activation)
    common = (*indices(rows, channels, stride), *reals(eps, slope_of(activation, slope)))
    gradients = NormalizeGradients(dx, dadd, dgamma, dbeta)
    kept = rows * slice_width(vector) * (x.itemsize + np.dtype(wide).itemsize)
    if on_chip(x, vector, kept):
        _at_once(to, given, gradients, name, (*common, *flags(batch_statistics)), kept)
    else:
        _sums_first(to, given, gradients, name, common, batch_statistics)
    return gradients


def _at_once(
    to: Outputs, given: dict[str, Any], gradients: NormalizeGradients, name: tuple[Any, ...], common: tuple[Any, ...],
    kept: int,
) -> None:  # fmt: skip
    """One launch, a block a slice of channels, whose x and dz stay in shared memory."""
    x = given["reads"][1]
    grid = (-(-int(x.shape[-1]) // slice_width(name[1])),)
    run = kernel(x, BACKWARD, "batch_norm_gradients", *name, grid=grid, shared=kept)
    adds = flags(*map(to.adds, ("dx", "dgamma", "dbeta")))
    to.launch(run, **given, writes=tuple(gradients), scalars=(*common, *adds))


def _sums_first(
    to: Outputs, given: dict[str, Any], gradients: NormalizeGradients, name: tuple[Any, ...], common: tuple[Any, ...],
    batch_statistics: bool,
) -> None:  # fmt: skip
    """The sums over the rows, dgamma and dbeta in one launch, dx and dadd in another."""
    x, (dx, dadd, dgamma, dbeta) = given["reads"][1], gradients
    (rows, channels), vector = extent(x), name[1]
    sums = to.array("sums", (2, channels), np.float64, x)
    slices, splits = sliced_grid(x, rows, channels, vector, sums=True)
    run = kernel(
        x, BACKWARD, "batch_norm_sums", *name, grid=(slices, splits), bound=((11, arrivals(x, slices)),)
    )  # behind three arrays in full, four by rows, three outputs and the partial sums
    to.launch(
        run,
        **given,
        writes=(dgamma, dbeta, sums),
        scratch=(((splits, 2, channels), np.float64),),
        scalars=(*common, *flags(to.adds("dgamma"), to.adds("dbeta"))),
    )
    run = kernel(x, BACKWARD, "batch_norm_backward", *name, grid=sliced_grid(x, rows, channels, vector, sums=False))
    to.launch(
        run,
        whole=(*given["whole"], sums),
        reads=given["reads"],
        writes=(dx, dadd),
        scalars=(*common, *flags(batch_statistics, to.adds("dx"))),
    )


@version(ops.commit)
def commit(to: Outputs, running: Array, proposal: Array, ok: Array, decay: Array, unbiased: Array) -> Array:
    """Running statistics after a step; where ok is false the old ones, bit for bit."""
    ok, unbiased = ready(to, ok, np.bool_), ready(to, unbiased, np.bool_)
    running, proposal, decay = (ready(to, a, np.float64) for a in (running, proposal, decay))
    out = output(to, "out", running.shape, np.float64, running)
    channels = int(running.shape[1])
    run = kernel(running, FORWARD, "commit", grid=flat_grid(running, channels))
    reads = (running, proposal, decay, unbiased)
    to.launch(run, whole=(ok,), reads=reads, writes=(out,), scalars=indices(channels))
    return out


@version(ops.merge)
def merge(to: Outputs, a: Array, b: Array) -> Array:
    """Statistics of the union of two samples."""
    a, b = ready(to, a, np.float64), ready(to, b, np.float64)
    out = output(to, "out", a.shape, np.float64, a)
    channels = int(a.shape[1])
    run = kernel(a, FORWARD, "merge_statistics", grid=flat_grid(a, channels))
    to.launch(run, reads=(a, b), writes=(out,), scalars=indices(channels))
    return out
