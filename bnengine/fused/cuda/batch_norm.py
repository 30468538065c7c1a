"""Batch normalisation: moments, normalize and its way back, and what becomes of running statistics."""

from typing import Any

import numpy as np

from ..._typing import Array
from ...memory import Outputs
from ...ops.batch_norm import Moments, NormalizeGradients
from ...ops.pointwise import NEEDS_INPUT
from ._launch import (
    STORAGES,
    absent,
    activation_name,
    arithmetic,
    arrivals,
    extent,
    flags,
    flat_grid,
    indices,
    kernel,
    output,
    ready,
    reals,
    refusal,
    slice_width,
    sliced_grid,
    statistics_of,
    vector_of,
)
from ._launch import storage as storage_of

FORWARD, BACKWARD = "batch_norm.cu", "batch_norm_backward.cu"
ON_CHIP = 32 << 10  # bytes of shared memory that every device gives a block beside 16 KiB for the kernel's own arrays


def unsupported(x: Any) -> str | None:
    """Why these kernels cannot take arrays like x; None if they can."""
    return refusal(x, tuple(STORAGES))


def moments(to: Outputs, x: Array) -> Moments:
    """(count, mean, var) of the batch; the proposal is the same array unless it has a destination."""
    x = ready(to, x)
    rows, channels = extent(x)
    batch = output(to, "batch", (3, channels), np.float64, x)
    proposal, stride = None, channels
    if to.given("proposal"):
        proposal = output(to, "proposal", (3, channels), np.float64, x, rows_apart=True)
        stride = int(proposal.strides[0]) // 8
    vector = vector_of(x, channels, x)
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
    return Moments(batch, batch if proposal is None else proposal)


def normalize(
    to: Outputs, x: Array, statistics: Array, gamma: Array | None, beta: Array | None, add: Array | None = None, *,
    eps: float = 1e-5, activation: str = "identity", slope: float = 0.01,
) -> Array:  # fmt: skip
    """y = g(((x - hi) - lo) inv_std gamma + beta + add)."""
    x, add = ready(to, x), ready(to, add, x.dtype)
    gamma, beta = ready(to, gamma, arithmetic(x)), ready(to, beta, arithmetic(x))
    statistics, stride = statistics_of(to, statistics)
    rows, channels = extent(x)
    y = output(to, "out", x.shape, x.dtype, x)
    vector = vector_of(x, channels, x, add, y)
    name = storage_of(x), vector, activation_name(activation)
    run = kernel(x, FORWARD, "normalize", *name, grid=sliced_grid(x, rows, channels, vector, sums=False))
    scalars = (*indices(rows, channels, stride), *reals(eps, slope))
    to.launch(run, whole=(statistics, gamma, beta), reads=(x, add), writes=(y,), scalars=scalars)
    return y


def normalize_backward(
    to: Outputs, dy: Array, x: Array, y: Array, statistics: Array, gamma: Array | None, beta: Array | None,
    add: Array | None = None, *, eps: float = 1e-5, activation: str = "identity", slope: float = 0.01,
    batch_statistics: bool = True,
) -> NormalizeGradients:  # fmt: skip
    """All gradients in one launch where a slice of channels fits on the chip, else in two."""
    x = ready(to, x)
    dy = ready(to, dy, x.dtype)
    has_add, needs_z = add is not None, activation in NEEDS_INPUT
    y = None if needs_z or activation == "identity" else ready(to, y, x.dtype)
    add = ready(to, add, x.dtype) if needs_z else None
    wide = arithmetic(x)
    gamma, beta = ready(to, gamma, wide), ready(to, beta, wide)
    statistics, stride = statistics_of(to, statistics)
    rows, channels = extent(x)
    absent(to, *(name for name, a in (("dgamma", gamma), ("dbeta", beta)) if a is None))
    dgamma, dbeta = (
        None if a is None else output(to, name, (channels,), wide, x)
        for name, a in (("dgamma", gamma), ("dbeta", beta))
    )
    dx = output(to, "dx", x.shape, x.dtype, x)
    if not has_add:
        absent(to, "dadd")
    dadd = output(to, "dadd", x.shape, x.dtype, x) if has_add else None

    given = {"whole": (statistics, gamma, beta), "reads": (dy, x, y, add)}
    vector = vector_of(x, channels, dy, x, y, add, dx, dadd)
    name = storage_of(x), vector, activation_name(activation)
    common = (*indices(rows, channels, stride), *reals(eps, slope))
    gradients = NormalizeGradients(dx, dadd, dgamma, dbeta)
    kept = rows * slice_width(vector) * (x.itemsize + np.dtype(wide).itemsize)
    if kept <= ON_CHIP:
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


def merge(to: Outputs, a: Array, b: Array) -> Array:
    """Statistics of the union of two samples."""
    a, b = ready(to, a, np.float64), ready(to, b, np.float64)
    out = output(to, "out", a.shape, np.float64, a)
    channels = int(a.shape[1])
    run = kernel(a, FORWARD, "merge_statistics", grid=flat_grid(a, channels))
    to.launch(run, reads=(a, b), writes=(out,), scalars=indices(channels))
    return out
