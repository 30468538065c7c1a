"""Statistics of channels: computed from a batch, merged, and averaged over steps.

They have one form everywhere: a float64 array of three rows (count, mean, biased variance), one column per channel. The
moments of a batch, the pending statistics of an optimizer step and the running statistics all have it. So those of a
network are one (3, C) buffer, and two of them merge by one formula. Count 0 means "no rows" and changes nothing.
"""

from math import prod
from typing import NamedTuple

from .._typing import Array
from ..arrays.namespaces import namespace
from ..runtime.op import op


def rows_of(x: Array) -> tuple[int, ...]:
    """The axes of a channel's values: all but the last."""
    return tuple(range(x.ndim - 1))


def sum_rows(x: Array) -> Array:
    """The sum of each channel over the rows, added in float64, in the dtype of x."""
    xp = namespace(x)
    return xp.astype(xp.sum(x, axis=rows_of(x), dtype=xp.float64), x.dtype)


@op(family="batch_norm")
def merge(a: Array, b: Array) -> Array:
    """Statistics of the union of two samples, as if computed from all rows at once.

        n = n_a + n_b        delta = mean_b - mean_a        mean = mean_a + delta n_b/n
        var = var_a n_a/n + var_b n_b/n + delta^2 n_a n_b/n^2

    Chan, Golub and LeVeque (1979), equation 2.1.

    Args:
        a, b: (3, C) float64, as is the result.
    """
    xp = namespace(a)
    n = a[0, :] + b[0, :]
    share = b[0, :] / xp.where(n > 0, n, xp.ones_like(n))
    delta = b[1, :] - a[1, :]
    mean = a[1, :] + delta * share
    var = a[2, :] + share * (b[2, :] - a[2, :]) + delta**2 * share * (1 - share)
    merged = xp.stack([n, mean, var])
    return xp.where(b[0, :] > 0, xp.where(a[0, :] > 0, merged, b), a)


class Moments(NamedTuple):
    """(count, mean, biased variance) of a batch, twice: only `pending` is merged into a destination."""

    batch: Array
    pending: Array


@op(family="batch_norm", accumulates={"pending": merge.reference})
def moments(x: Array) -> Moments:
    """Count, mean and biased variance of each channel.

    With the pivot p = fl(mean x):  s = mean(x - p);  mean = p + s;  var = mean((x - p - s)^2). The correction s removes
    the rounding error of p (Chan, Golub and LeVeque 1983), so neither a large mean nor an outlier costs digits, and the
    mean of a constant channel is its value.

    Args:
        x: (..., C), floating.

    Returns:
        (3, C) float64, twice.
    """
    xp = namespace(x)
    rows = rows_of(x)
    wide = xp.astype(x, xp.float64)
    pivot = xp.mean(wide, axis=rows, keepdims=True)
    d = wide - pivot
    shift = xp.mean(d, axis=rows, keepdims=True)
    mean = xp.reshape(pivot + shift, (-1,))
    var = xp.mean((d - shift) ** 2, axis=rows)
    batch = xp.stack([xp.full_like(mean, prod(x.shape[:-1])), mean, var])
    return Moments(batch, batch)


@op(family="batch_norm")
def commit(running: Array, pending: Array, ok: Array, decay: Array, unbiased: Array) -> Array:
    """Running statistics after one optimizer step; the old ones, bit for bit, if not ok or if nothing is pending.

        mean  <- decay mean + (1 - decay) mean_batch
        var   <- decay var + (1 - decay) var_batch m/(m - 1)
        count <- count + m

    Args:
        running, pending: (3, C) float64.
        ok: (1,) bool, whether the step changes anything.
        decay: (C,) float64, the share of the old value that is kept; -1 merges the batches exactly, by `merge`.
        unbiased: (C,) bool, whether var takes the factor m/(m - 1) of the 2015 paper (Algorithm 2, step 10).
    """
    xp = namespace(running)
    n = pending[0, :]
    correction = xp.where(unbiased & (n > 1), n / xp.where(n > 1, n - 1, xp.ones_like(n)), xp.ones_like(n))
    mean = decay * running[1, :] + (1 - decay) * pending[1, :]
    var = decay * running[2, :] + (1 - decay) * (pending[2, :] * correction)
    averaged = xp.stack([running[0, :] + n, mean, var])
    new = xp.where(decay < 0, merge.reference(running, pending), averaged)
    return xp.where(ok & (n > 0), new, running)
