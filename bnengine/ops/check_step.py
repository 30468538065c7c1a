"""Checks that a step is finite, and computes the clipping factor and the next loss scale.

In float16, gradients vanish below 6e-8 and overflow above 65504. So the loss op multiplies its gradient by a scale,
which reaches every gradient of the backward pass, and the clipping factor divides by it again. Training adapts the
scale: if gradients overflow though loss and statistics are finite, the step is skipped and the scale falls; after
`every` good steps it grows. The scale and its counters stay on the device, so the host reads nothing. Micikevicius et
al. (2018), section 3.2.
"""

from math import sqrt
from typing import NamedTuple

from .._typing import Array
from ..arrays.namespaces import namespace
from ..runtime.op import op

SCALE, GOOD, IN_A_ROW, LONGEST = range(4)
SMALLEST, LARGEST = 2.0**-24, 2.0**64  # of a scale: its inverse is a normal number


class StepCheck(NamedTuple):
    """Whether the step may change anything, and by how much to clip it.

    Attributes:
        ok: (1,) bool: loss, gradients and pending statistics are finite.
        norm: (1,) float64, of the gradients, before clipping.
        factor: (1,), which multiplies the gradients.
        scaling: (4,), the next loss scale and its counters, see `check_step`; None without a loss scale.
    """

    ok: Array
    norm: Array
    factor: Array
    scaling: Array | None = None


@op(family="update")
def check_step(
    loss: Array, gradients: Array, pending: Array, scaling: Array | None = None, *,
    clip: float | None = None, growth: float = 2.0, backoff: float = 0.5, every: int = 2000,
) -> StepCheck:  # fmt: skip
    """ok = everything is finite;  norm = |gradients|_2 / scale;  factor = min(1, clip / norm) / scale.

    The norm is computed in float64, where float32 gradients cannot overflow. Without a clip at or below the square root
    of the dtype's largest number, a norm above that root is not ok either: Adam and RMSprop store squares of gradients
    in the gradients' dtype, and an infinite one would stay.

    Args:
        loss: (1,).
        gradients: (n,), flat.
        pending: (..., 3, C) float64, statistics.
        scaling: (4,): scale, good steps since it changed, steps skipped in a row, longest such run; None for scale 1.
        clip: the largest norm; None does not clip.
        growth: after `every` good steps, scale <- growth scale.
        backoff: if gradients overflow though loss and statistics are finite, scale <- backoff scale. A skip that
            lowers a scale above 1 does not count as skipped in a row: finding the scale causes it.
        every: how many good steps.
    """
    xp = namespace(gradients)
    wide = xp.astype(gradients, xp.float64)
    norm = xp.reshape(xp.sqrt(xp.sum(wide * wide)), (1,))
    scale = xp.ones_like(norm) if scaling is None else xp.astype(scaling[:1], xp.float64)
    norm = norm / scale
    largest = sqrt(xp.finfo(gradients.dtype).max)
    usable = norm <= largest if clip is None or clip > largest else xp.isfinite(norm)
    sound = xp.isfinite(loss) & xp.all(xp.isfinite(pending))
    factor = xp.ones_like(norm)
    if clip is not None:
        factor = clip / xp.where(norm > clip, norm, xp.full_like(norm, clip))
    new = None
    if scaling is not None:
        new = _rescaled(scaling, usable & sound, sound & ~xp.isfinite(norm), growth, backoff, every)
    return StepCheck(usable & sound, norm, xp.astype(factor / scale, gradients.dtype), new)


def _rescaled(scaling: Array, ok: Array, overflown: Array, growth: float, backoff: float, every: int) -> Array:
    xp = namespace(scaling)
    scale, good, in_a_row, longest = (scaling[i : i + 1] for i in range(4))
    none = xp.zeros_like(good)
    grows = ok & (good + 1 >= every)
    new = xp.where(overflown, scale * backoff, xp.where(grows, scale * growth, scale))
    new = xp.where(new < SMALLEST, xp.full_like(new, SMALLEST), new)
    new = xp.where(new > LARGEST, xp.full_like(new, LARGEST), new)
    excused = overflown & (scale > 1) & (new < scale)
    good = xp.where(ok, xp.where(grows, none, good + 1), xp.where(overflown, none, good))
    in_a_row = xp.where(ok, none, xp.where(excused, in_a_row, in_a_row + 1))
    return xp.concat([new, good, in_a_row, xp.where(in_a_row > longest, in_a_row, longest)])
