"""Batch normalization (Ioffe and Szegedy, 2015), forward and backward.

For the m rows x of a mini-batch, in each channel (Algorithm 1 of the paper):

    mean   = 1/m sum x                          var = 1/m sum (x - mean)^2
    x_norm = (x - mean) / sqrt(var + eps)       y   = gamma x_norm + beta

With dy the gradient of the loss at y, and since mean and var depend on x as well (section 3 of the paper):

    dbeta = sum dy                              dgamma = sum dy x_norm
    dx    = gamma / sqrt(var + eps) (dy - dbeta/m - x_norm dgamma/m)

The last axis holds the C channels; all other axes are rows. Training normalizes by the statistics of the batch
(`batch_norm`), inference by running statistics (`normalize`); `statistics.py` computes and merges them. Both ops can
also add a residual and apply an activation g: y = g(z), z = gamma x_norm + beta + add.
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
    """The output y, and the batch's (count, mean, biased variance) twice, as in `Moments`."""

    y: Array
    batch: Array
    pending: Array


@op(family="batch_norm", accumulates={"pending": merge.reference})
def batch_norm(
    x: Array, gamma: Array | None, beta: Array | None, add: Array | None = None, *,
    eps: float = 1e-5, activation: str = "identity", slope: float | None = None,
) -> BatchNormalized:  # fmt: skip
    """Normalize x by its own `moments`: the forward pass of training.

    Its derivative is `normalize_backward` with statistics = `batch`. Arguments and y are those of `normalize`. A
    destination of `pending` is merged into; `batch` depends on this batch alone.
    """
    batch, pending = moments.reference(x)
    y = normalize.reference(x, batch, gamma, beta, add, eps=eps, activation=activation, slope=slope)
    return BatchNormalized(y, batch, pending)


@op(family="batch_norm")
def normalize(
    x: Array, statistics: Array, gamma: Array | None, beta: Array | None, add: Array | None = None, *,
    eps: float = 1e-5, activation: str = "identity", slope: float | None = None,
) -> Array:  # fmt: skip
    """Normalize by given statistics: y = g(gamma (x - mean) / sqrt(var + eps) + beta + add).

    In float32 the error of y is at most 10 u |y| + 10 u |gamma| up to |mean|/std = 1e6. A constant channel gives
    g(beta).

    Args:
        x, add: (..., C), of one floating dtype; add may be None.
        statistics: (3, C) float64: count, mean, biased variance.
        gamma, beta: (C,), float32 where x has 16 bits, else as x; None for 1 and 0.
        slope: the activation's parameter; None for its default.

    Returns:
        y, of the shape and dtype of x.
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
    """Gradients of `normalize`: the formulas at the top with dz = dy g'(z) in place of dy, and dadd = dz.

    Args:
        dy, y: (..., C), the gradient at y and the output of `normalize`, whose arguments the others are.
        batch_statistics: if False, mean and var are constants, and dx = gamma / sqrt(var + eps) dz.

    Returns:
        dx and dadd like x, dgamma and dbeta like gamma. dadd is a new array.
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
    """x_norm and 1 / sqrt(var + eps). x - mean = (x - hi) - lo with mean = hi + lo keeps all digits of a large mean."""
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
