"""Batch normalisation, as Ioffe and Szegedy (2015) define it, with statistics that do not cancel.

For m rows x of a mini-batch, per channel (a channel is a column: the last axis; all other axes are rows):

    mean  = 1/m sum x                      var = 1/m sum (x - mean)^2
    x_norm = (x - mean) / sqrt(var + eps)  y   = gamma x_norm + beta

mean and var are those of the batch in training (`batch_norm`) and the running ones otherwise (`normalize`); in
`statistics.py` is how they are taken, and kept.
"""

from math import prod
from operator import add as plus
from typing import NamedTuple

from .._typing import Array
from ..namespaces import namespace
from ._op import op
from .pointwise import (
    activate,
    derivative,
)
from .statistics import merge, moments, rows_of
from .storage import stored, widened


def centred(x: Array, statistics: Array, eps: float) -> tuple[Array, Array]:
    """((x - hi) - lo, inv_std), wide: the mean as a pair of numbers, so that a large one does not cancel."""
    xp, x = namespace(x), widened(x)
    hi = xp.astype(statistics[1, :], x.dtype)
    lo = xp.astype(statistics[1, :] - xp.astype(hi, xp.float64), x.dtype)
    return (x - hi) - lo, xp.astype(1 / xp.sqrt(statistics[2, :] + eps), x.dtype)


def affine_part(x_norm: Array, gamma: Array | None, beta: Array | None, add: Array | None) -> Array:
    z = x_norm if gamma is None else x_norm * gamma
    z = z if beta is None else z + beta
    return z if add is None else z + widened(add)


@op(family="batch_norm")
def normalize(
    x: Array,
    statistics: Array,
    gamma: Array | None,
    beta: Array | None,
    add: Array | None = None,
    *,
    eps: float = 1e-5,
    activation: str = "identity",
    slope: float = 0.01,
) -> Array:
    """y = g(((x - hi) - lo) inv_std gamma + beta + add), with mean = hi + lo and inv_std = 1/sqrt(var + eps).

    x (..., C); statistics (3, C) float64; gamma, beta (C,) or None for 1 and 0; add like x or None; y like x. The sum
    is never folded into a x + b: with |mean|/std up to 1e6 in float32 the error stays within 10 u |y| + 10 u |gamma|,
    and a constant channel gives exactly g(beta).
    """
    d, inv_std = centred(x, statistics, eps)
    return stored(activate(affine_part(d * inv_std, gamma, beta, add), activation, slope), x)


class BatchNormalized(NamedTuple):
    """y, and what it was normalised by: (count, mean, biased variance) of the batch, twice as in `Moments`."""

    y: Array
    batch: Array
    proposal: Array


@op(family="batch_norm", accumulates={"proposal": merge.reference})
def batch_norm(
    x: Array,
    gamma: Array | None,
    beta: Array | None,
    add: Array | None = None,
    *,
    eps: float = 1e-5,
    activation: str = "identity",
    slope: float = 0.01,
) -> BatchNormalized:
    """`normalize` by the `moments` of x itself: what training does. Its way back is `normalize_backward` by `batch`.

    Shapes and dtypes as there. A destination of `proposal` is merged into; `batch` is always this batch's own, and y
    depends on nothing else.
    """
    batch, proposal = moments.reference(x)
    y = normalize.reference(x, batch, gamma, beta, add, eps=eps, activation=activation, slope=slope)
    return BatchNormalized(y, batch, proposal)


class NormalizeGradients(NamedTuple):
    """Gradients of `normalize`; dadd is what reaches `add`; None where there was no such argument."""

    dx: Array
    dadd: Array | None
    dgamma: Array | None
    dbeta: Array | None


@op(family="batch_norm", accumulates={"dx": plus, "dgamma": plus, "dbeta": plus})
def normalize_backward(
    dy: Array,
    x: Array,
    y: Array,
    statistics: Array,
    gamma: Array | None,
    beta: Array | None,
    add: Array | None = None,
    *,
    eps: float = 1e-5,
    activation: str = "identity",
    slope: float = 0.01,
    batch_statistics: bool = True,
) -> NormalizeGradients:
    """With dz = dy g'(z), x_norm = (x - mean) inv_std, and m rows to a channel:

    dbeta = sum dz;  dgamma = sum dz x_norm;  dadd = dz;
    dx = gamma inv_std (dz - dbeta/m - x_norm dgamma/m), as mean and var are functions of x (Ioffe and Szegedy 2015,
    section 3); with `batch_statistics` false they are constants and dx = gamma inv_std dz. Shapes as in `normalize`; y
    = its output. dx, dgamma, dbeta may be added into destinations. dadd is a new array.
    """
    xp = namespace(x)
    rows, m = rows_of(x), prod(x.shape[:-1])
    d, inv_std = centred(x, statistics, eps)
    x_norm = d * inv_std
    z = affine_part(x_norm, gamma, beta, add) if activation == "gelu" else None
    dz = derivative(widened(dy), widened(y), activation, slope, z)
    dbeta = xp.astype(xp.sum(dz, axis=rows, dtype=xp.float64), dz.dtype)
    dgamma = xp.astype(xp.sum(dz * x_norm, axis=rows, dtype=xp.float64), dz.dtype)
    dx = dz - dbeta / m - x_norm * (dgamma / m) if batch_statistics else dz
    dx = dx * (inv_std if gamma is None else gamma * inv_std)
    dadd = None if add is None else xp.asarray(stored(dz, x), copy=activation == "identity")
    return NormalizeGradients(stored(dx, x), dadd, None if gamma is None else dgamma, None if beta is None else dbeta)


def batch_normalization(x: Array, mean: Array, var: Array, beta: Array, gamma: Array, eps: float) -> Array:
    """y = gamma (x - mean) / sqrt(var + eps) + beta: `normalize` with the arguments of `tf.nn.batch_normalization`.

    x (..., C); mean, var (C,) of any floating dtype; beta, gamma (C,) or None; y like x. Errors: those of `normalize`.
    """
    xp = namespace(x)
    wide = [xp.astype(a, xp.float64) for a in (mean, var)]
    return normalize(x, xp.stack([xp.ones_like(wide[0]), *wide]), gamma, beta, eps=eps)
