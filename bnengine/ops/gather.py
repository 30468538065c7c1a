"""Gathering the rows of a micro-batch from a data set in the device's memory."""

from typing import NamedTuple

from .._typing import Array
from ..arrays.namespaces import namespace
from ..runtime.op import op

POSITION, GROUP = 0, 1  # positions in a cursor


class Gathered(NamedTuple):
    """The rows of a micro-batch, and the divisor of its step."""

    x: Array
    target: Array
    weights: Array | None
    samples: Array
    divisor: Array


@op(family="gather")
def gather(
    x: Array, target: Array, weights: Array | None, samples: Array, divisors: Array, order: Array, cursor: Array, *,
    rows: int, offset: int = 0,
) -> Gathered:  # fmt: skip
    """Take a micro-batch: rows order[p], ..., order[p + rows - 1] of each array, p = cursor[0] + offset, bit for bit.

    Args:
        x: (n, ...), floating.
        target: (n, ...), int64 or floating.
        weights: (n, ...) or None.
        samples, order: (n,) int64: each row's index in the data set, and the order of this epoch.
        divisors: (steps,), that of the loss for each step of the epoch; the result has that of step cursor[1].
        cursor: (2,) int64: position in the order, step of the epoch.
        rows: how many rows.
        offset: where the micro-batch begins in its step.
    """
    xp = namespace(x)
    places = cursor[POSITION : POSITION + 1] + xp.arange(offset, offset + rows, dtype=xp.int64)
    chosen = xp.take(order, places, axis=0)
    x, target, samples = (xp.take(a, chosen, axis=0) for a in (x, target, samples))
    weights = None if weights is None else xp.take(weights, chosen, axis=0)
    return Gathered(x, target, weights, samples, xp.take(divisors, cursor[GROUP : GROUP + 1], axis=0))


@op(family="gather")
def gather_raw(
    x: Array, target: Array, weights: Array | None, samples: Array, divisors: Array, order: Array, cursor: Array,
    mean: Array | None = None, inv_scale: Array | None = None, *, rows: int, offset: int = 0,
) -> Gathered:  # fmt: skip
    """Take a micro-batch from raw data that are not copied: x_out = (x - mean) inv_scale in float64, rounded once.

    Args:
        x: (N, ...) of any real dtype, perhaps a mapped file; the batch takes its rows samples[order[p]], ...
        mean, inv_scale: (features,) float64; None for a cast alone. The other arguments are those of `gather`.

    Returns:
        As `gather`; x has the dtype of the divisors.
    """
    xp = namespace(samples)
    places = cursor[POSITION : POSITION + 1] + xp.arange(offset, offset + rows, dtype=xp.int64)
    chosen = xp.take(order, places, axis=0)
    target, samples = (xp.take(a, chosen, axis=0) for a in (target, samples))
    x = xp.take(x, samples, axis=0)
    if mean is not None:
        x = (xp.astype(x, xp.float64) - mean) * inv_scale
    weights = None if weights is None else xp.take(weights, chosen, axis=0)
    divisor = xp.take(divisors, cursor[GROUP : GROUP + 1], axis=0)
    return Gathered(xp.astype(x, divisors.dtype), target, weights, samples, divisor)
