"""check_step: checks that a step is finite, and computes the clipping factor and the next loss scale.

In float16 the gradients of activations vanish below 6e-8 and overflow above 65504. So the loss op multiplies its
gradient by a scale, which reaches every gradient of the backward pass, and the clipping factor divides by it again.
Training adapts the scale: where gradients overflow though loss and statistics are finite, the step is skipped and the
scale falls; after `every` good steps it grows. `scaling` holds the scale and its counters on the device, so the host
reads nothing. Micikevicius et al. (2018), section 3.2.
"""

from math import sqrt
from typing import NamedTuple

from .._typing import Array
from ..arrays.namespaces import namespace
from ..runtime.op import op

SCALE, GOOD, IN_A_ROW, LONGEST = range(4)
SMALLEST, LARGEST = 2.0**-24, 2.0**64  # of a scale: its inverse is a normal number, and nothing ever sticks at 0 or inf


class StepCheck(NamedTuple):
    """ok (1,) bool: loss, gradients and pending statistics are finite; norm (1,) float64; factor (1,) clips.

    scaling (4,): the loss scale of the next step, see `check_step`; None where the loss is not scaled.
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
    """ok = all finite, and the clipped norm's square too;  norm = |gradients|_2 / scale;

    factor = min(1, clip / norm) / scale. loss (1,); gradients flat; pending (..., 3, C). The norm is taken in
    float64, where float32 gradients cannot overflow it; but Adam and RMSprop keep squares in the gradients' dtype, and
    an infinite one never goes away.

    scaling (4,) = (scale, good steps since it changed, skipped in a row, longest such run); without it the scale is 1.
    Gradients that are not finite where loss and pending statistics are: scale <- backoff scale. `every` good steps:
    scale <- growth scale. A skip that lowered a scale above 1 does not count as skipped in a row: the
    search for the scale causes it.
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
