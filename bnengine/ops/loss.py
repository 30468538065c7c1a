"""Losses: the value, and the gradient at the network's output, in one op.

All of them divide by `divisor`: the rows, or their total weight, of the *whole* optimizer step, so that the gradients
of micro-batches add up to those of the large batch. It is a number or an array (1,). `scale` (1,) multiplies the
gradient only, so that small gradients do not vanish in 16 bits; `check_step` divides by it. Where outputs have 16 bits,
targets, weights, the value and the arithmetic are float32.
"""

from operator import add
from typing import Any, NamedTuple

from .._typing import Array
from ..arrays.dtypes import stored, widened
from ..arrays.namespaces import namespace
from ..runtime.op import op
from .activations import activate


class Loss(NamedTuple):
    """The value (1,), which may be added into a destination, and the gradient at the network's output."""

    value: Array
    dlogits: Array


@op(family="loss", accumulates={"value": add})
def softmax_cross_entropy(
    logits: Array,
    target: Array,
    class_weights: Array | None = None,
    sample_weights: Array | None = None,
    *,
    divisor: Any,
    label_smoothing: float = 0.0,
    scale: Array | None = None,
) -> Loss:
    """value = -sum_i v_i sum_k c_k t_ik log q_ik / divisor, with q = softmax(logits) and t the (smoothed) targets.

        dlogits = scale v (q sum_k c_k t_k - c t) / divisor

    The largest logit is subtracted first, so nothing overflows.

    Args:
        logits: (..., K), floating.
        target: (...) integers from 0 to K - 1, or probabilities (..., K).
        class_weights: c, (K,); None for 1.
        sample_weights: v, (...); None for 1.
        label_smoothing: s in t <- (1 - s) t + s/K (Szegedy et al. 2016, section 7).
    """
    xp, wide = namespace(logits), widened(logits)
    s = wide - xp.max(wide, axis=-1, keepdims=True)
    e = xp.exp(s)
    total = xp.sum(e, axis=-1, keepdims=True)
    t = target_distribution(target, wide, label_smoothing)
    t = t if class_weights is None else t * class_weights
    t = t if sample_weights is None else t * xp.expand_dims(sample_weights, axis=-1)
    surprise = xp.where(t != 0, t * (xp.log(total) - s), xp.zeros_like(t))  # 0 log 0 is 0
    dlogits = (e / total * xp.sum(t, axis=-1, keepdims=True) - t) / divisor
    return Loss(_total(surprise) / divisor, _gradient(dlogits, scale, logits))


@op(family="loss", accumulates={"value": add})
def binary_cross_entropy(
    logits: Array, target: Array, sample_weights: Array | None = None, *, divisor: Any, scale: Array | None = None
) -> Loss:
    """value = sum v (max(l, 0) - l t + log(1 + e^-|l|)) / divisor: K independent yes-or-no outputs.

        dlogits = scale v (sigmoid(l) - t) / divisor

    Args:
        logits, target: l and t, (..., K), floating; t in [0, 1].
        sample_weights: v, (...); None for 1.
    """
    xp, like, logits = namespace(logits), logits, widened(logits)
    v = 1 if sample_weights is None else xp.expand_dims(sample_weights, axis=-1)
    positive = xp.where(logits < 0, xp.zeros_like(logits), logits)
    surprise = positive - logits * target + xp.log1p(xp.exp(-xp.abs(logits)))
    slope = (activate(logits, "sigmoid") - target) * v / divisor
    return Loss(_total(surprise * v) / divisor, _gradient(slope, scale, like))


@op(family="loss", accumulates={"value": add})
def mean_squared_error(
    prediction: Array, target: Array, sample_weights: Array | None = None, *, divisor: Any,
    scale: Array | None = None,
) -> Loss:  # fmt: skip
    """value = sum v (p - t)^2 / divisor.

        gradient = 2 scale v (p - t) / divisor

    Args:
        prediction, target: p and t, (..., K), floating.
        sample_weights: v, (...); None for 1.
    """
    xp = namespace(prediction)
    v = 1 if sample_weights is None else xp.expand_dims(sample_weights, axis=-1)
    error = widened(prediction) - target
    return Loss(_total(error**2 * v) / divisor, _gradient(error * v * 2 / divisor, scale, prediction))


@op(family="loss", accumulates={"out": add})
def correct(output: Array, target: Array) -> Array:
    """Count the rows that are classified correctly, (1,) float64.

    A row is correct if its largest output is that of the target's class, or of the most probable class. With K = 1 a
    logit above 0 means 1, which is correct if the target is above 1/2. A row with a NaN is not correct.

    Args:
        output: (..., K), floating.
        target: (...) integers, or probabilities (..., K).
    """
    xp, output = namespace(output), widened(output)
    if output.shape[-1] == 1 and not xp.isdtype(target.dtype, "integral"):
        right = ((output > 0) == (target > 0.5)) & ~xp.isnan(output)
    else:
        if not xp.isdtype(target.dtype, "integral"):
            target = xp.argmax(target, axis=-1)
        finite = ~xp.any(xp.isnan(output), axis=-1)
        right = (xp.argmax(output, axis=-1) == target) & finite
    return xp.reshape(xp.sum(xp.astype(right, xp.float64)), (1,))


def _total(rows: Array) -> Array:
    """The sum of all elements, added in float64, (1,), in the dtype of `rows`."""
    xp = namespace(rows)
    return xp.astype(xp.reshape(xp.sum(rows, dtype=xp.float64), (1,)), rows.dtype)


def _gradient(gradient: Array, scale: Array | None, like: Array) -> Array:
    """The gradient that the backward pass begins with: scaled, in the dtype of the network's output."""
    return stored(gradient if scale is None else gradient * scale, like)


def target_distribution(target: Array, like: Array, label_smoothing: float) -> Array:
    """Targets as probabilities (..., K): one-hot for integers, smoothed to (1 - s) t + s/K."""
    xp = namespace(like)
    classes = like.shape[-1]
    if xp.isdtype(target.dtype, "integral"):
        target = xp.expand_dims(target, axis=-1) == xp.arange(classes, dtype=target.dtype)
    target = xp.astype(target, like.dtype)
    return target if label_smoothing == 0 else target * (1 - label_smoothing) + label_smoothing / classes
