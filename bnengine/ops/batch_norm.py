"""Batch normalization (Ioffe and Szegedy, 2015), forward and backward.

For the m rows x of a mini-batch, in each channel:

    mean   = 1/m sum x                          var = 1/m sum (x - mean)^2
    x_norm = (x - mean) / sqrt(var + eps)       y   = gamma x_norm + beta

and, with dy the gradient of the loss at y, since mean and var depend on x as well (section 3 of the paper):

    dbeta = sum dy                              dgamma = sum dy x_norm
    dx    = gamma / sqrt(var + eps) (dy - dbeta/m - x_norm dgamma/m)

The last axis holds the channels; all other axes are rows. Training normalizes by the statistics of the batch
(`batch_norm`), inference by running ones (`normalize`); `statistics.py` computes, merges and keeps them. Both can add a
residual and apply an activation g in the same pass: y = g(z), z = gamma x_norm + beta + add.
"""

from math import prod
from operator import add as plus
from typing import NamedTuple

from .._typing import Array
from ..arrays.dtypes import stored, widened
from ..arrays.namespaces import namespace
from ..runtime.op import op
from .activations import ACTIVATIONS, activate, derivative
from .statistics import merge, moments, sum_rows


class BatchNormalized(NamedTuple):
    """y, and the batch's (count, mean, biased variance), twice as in `Moments`."""

    y: Array
    batch: Array
    pending: Array


@op(family="batch_norm", accumulates={"pending": merge.reference})
def batch_norm(
    x: Array, gamma: Array | None, beta: Array | None, add: Array | None = None, *,
    eps: float = 1e-5, activation: str = "identity", slope: float | None = None,
) -> BatchNormalized:  # fmt: skip
    """`normalize` x by its own `moments`, as training does; `normalize_backward` by `batch` is the derivative.

    A destination of `pending` is merged into; `batch` and y depend on this batch alone.
    """
    batch, pending = moments.reference(x)
    y = normalize.reference(x, batch, gamma, beta, add, eps=eps, activation=activation, slope=slope)
    return BatchNormalized(y, batch, pending)


@op(family="batch_norm")
def normalize(
    x: Array, statistics: Array, gamma: Array | None, beta: Array | None, add: Array | None = None, *,
    eps: float = 1e-5, activation: str = "identity", slope: float | None = None,
) -> Array:  # fmt: skip
    """y = g(gamma (x - mean) / sqrt(var + eps) + beta + add).

    x, add and y are (..., C); statistics (3, C) float64: count, mean, var; gamma and beta (C,), None for 1 and 0. In
    float32 the error of y is at most 10 u |y| + 10 u |gamma| up to |mean|/std = 1e6; a constant channel gives g(beta).
    """
    x_norm, _ = normalized(x, statistics, eps)
    z = scaled_and_shifted(x_norm, gamma, beta, add)
    return stored(activate(z, activation, slope), x)


class NormalizeGradients(NamedTuple):
    """Gradients of the arguments of `normalize`; None for an absent argument."""

    dx: Array
    dadd: Array | None
    dgamma: Array | None
    dbeta: Array | None


@op(family="batch_norm", accumulates={"dx": plus, "dgamma": plus, "dbeta": plus})
def normalize_backward(
    dy: Array, x: Array, y: Array, statistics: Array,
    gamma: Array | None, beta: Array | None, add: Array | None = None, *,
    eps: float = 1e-5, activation: str = "identity", slope: float | None = None, batch_statistics: bool = True,
) -> NormalizeGradients:  # fmt: skip
    """The formulas above with dz = dy g'(z) in place of dy, and dadd = dz.

    Without `batch_statistics` mean and var are constants, and dx = gamma / sqrt(var + eps) dz. y is the output of
    `normalize`, dy like it; the other arguments are those of `normalize`. dadd is a new array.
    """
    m = prod(x.shape[:-1])
    x_norm, inv_std = normalized(x, statistics, eps)
    z = scaled_and_shifted(x_norm, gamma, beta, add) if ACTIVATIONS[activation].reads == "z" else None
    dz = derivative(widened(dy), widened(y), activation, slope, z)
    dbeta, dgamma = sum_rows(dz), sum_rows(dz * x_norm)
    dx_norm = dz - dbeta / m - x_norm * (dgamma / m) if batch_statistics else dz
    dx = stored(dx_norm * (inv_std if gamma is None else gamma * inv_std), x)
    dadd = None if add is None else namespace(x).asarray(stored(dz, x), copy=activation == "identity")
    return NormalizeGradients(dx, dadd, None if gamma is None else dgamma, None if beta is None else dbeta)


def normalized(x: Array, statistics: Array, eps: float) -> tuple[Array, Array]:
    """(x_norm, 1 / sqrt(var + eps)). x - mean is (x - hi) - lo with mean = hi + lo, so a large mean costs no digits."""
    xp, x = namespace(x), widened(x)
    mean, var = statistics[1, :], statistics[2, :]
    hi = xp.astype(mean, x.dtype)
    lo = xp.astype(mean - xp.astype(hi, xp.float64), x.dtype)
    inv_std = xp.astype(1 / xp.sqrt(var + eps), x.dtype)
    return ((x - hi) - lo) * inv_std, inv_std


def scaled_and_shifted(x_norm: Array, gamma: Array | None, beta: Array | None, add: Array | None) -> Array:
    """z = gamma x_norm + beta + add."""
    z = x_norm if gamma is None else x_norm * gamma
    z = z if beta is None else z + beta
    return z if add is None else z + widened(add)
