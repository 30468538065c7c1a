"""A micro-batch gathered from the data set, where all data are in the memory of the device."""

from typing import NamedTuple

from .._typing import Array
from ..arrays.namespaces import namespace
from ..runtime.op import op

POSITION, GROUP = 0, 1  # a cursor's places


class Gathered(NamedTuple):
    """The rows of a micro-batch and the divisor of its step."""

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
    """Rows order[p], ..., order[p + rows - 1] of each array, with p = cursor[0] + offset, and divisors[cursor[1]].

    x (n, ...) floating; target (n, ...) int64 or floating; weights (n, ...) or None; samples, order (n,) int64;
    divisors (groups,); cursor (2,) int64 = (position in the order, steps of the epoch). Bit for bit.
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
    """`gather` from raw data that stay where they are: x_out = (x - mean) inv_scale in float64, rounded once.

    x (N, ...) of any real dtype, a mapped file perhaps, of which a batch takes rows samples[order[p]], ...; the rest as
    in `gather`. mean, inv_scale (features,) float64, or None for a cast alone. x_out has the dtype of the divisors.
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
