"""Dropout, forward and backward. The mask depends on the sample, never on its position in the batch."""

from math import prod
from operator import add
from typing import NamedTuple

from .._typing import Array
from ..arrays.dtypes import stored, widened
from ..arrays.namespaces import namespace
from ..arrays.random import keep_mask
from ..runtime.op import op


class Dropped(NamedTuple):
    """The output of `dropout` and its mask, which `dropout_backward` needs."""

    out: Array
    keep: Array


@op(family="dropout")
def dropout(x: Array, step: Array, samples: Array, *, seed: int, layer: int, rate: float) -> Dropped:
    """out = x / (1 - rate) where kept, else 0; each value is kept with probability 1 - rate (Srivastava et al. 2014).

    The mask is Philox of (seed, layer, step, sample, feature): the same on every library, for every order and size of
    the batch.

    Args:
        x: (m, ...), floating.
        step: (1,) int64, the number of the step.
        samples: (m,) int64, each row's index in the data set.
        seed: from 0 to 2**64 - 1.
        layer: the dropout's number in its network.
        rate: the share of values set to 0, in [0, 1).

    Returns:
        out like x, keep bool of the same shape.
    """
    xp = namespace(x)
    features = prod(x.shape[1:])
    keep = keep_mask(xp, seed=seed, layer=layer, step=step, samples=samples, features=features, rate=rate)
    keep = xp.reshape(keep, x.shape)
    return Dropped(_scaled(x, keep, rate), keep)


@op(family="dropout", accumulates={"out": add})
def dropout_backward(dy: Array, keep: Array, *, rate: float) -> Array:
    """Gradient of `dropout`: dx = dy / (1 - rate) where kept, else 0.

    Args:
        dy, keep: of one shape, keep bool; dx is like dy.
        rate: that of `dropout`.
    """
    return _scaled(dy, keep, rate)


def _scaled(x: Array, keep: Array, rate: float) -> Array:
    """x / (1 - rate) where kept, else 0."""
    return namespace(x).where(keep, stored(widened(x) / (1 - rate), x), namespace(x).zeros_like(x))
