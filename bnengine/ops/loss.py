"""Losses: the value and the gradient at the network's output, in one pass.

`divisor` divides both: the number of rows, or their total weight, of the *whole* optimizer step, so that the
gradients of micro-batches add up to the large batch's. It is a number or an array of shape (1,). `scale` (1,)
multiplies the gradient and not the value, so that small gradients do not vanish in 16 bits; `check_step` takes it out.
For outputs in 16 bits the arithmetic, targets, weights and the value are float32.
"""

from operator import add
from typing import Any, NamedTuple

from .._typing import Array
from ..arrays.dtypes import stored, widened
from ..arrays.namespaces import namespace
from ..runtime.op import op
from .activations import activate


class Loss(NamedTuple):
    """value, shape (1,), and the gradient of the prediction; the value may be added into a destination."""

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

    dlogits = scale v (q sum_k c_k t_k - c t) / divisor. logits (..., K); target (...) integers from 0 to K - 1 or
    (..., K) probabilities; class_weights c (K,), sample_weights v (...) or None for ones. The largest logit is
    subtracted first, so nothing overflows. Smoothing as in Szegedy et al. (2016), section 7.
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
    """value = sum v (max(l, 0) - l t + log(1 + e^-|l|)) / divisor;  dlogits = scale v (sigmoid(l) - t) / divisor.

    logits and target (..., K), target in [0, 1]; sample_weights v (...) or None. The K outputs are independent.
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
    """value = sum v (p - t)^2 / divisor;  gradient = 2 scale v (p - t) / divisor; p, t (..., K)."""
    xp = namespace(prediction)
    v = 1 if sample_weights is None else xp.expand_dims(sample_weights, axis=-1)
    error = widened(prediction) - target
    return Loss(_total(error**2 * v) / divisor, _gradient(error * v * 2 / divisor, scale, prediction))


@op(family="loss", accumulates={"out": add})
def correct(output: Array, target: Array) -> Array:
    """How many rows are classified right, (1,) float64: the largest logit is the target's, or its most probable class.

    output (..., K), target (...) integers or (..., K) probabilities; with K = 1 a logit above 0 says 1 and is right
    where the target is above 1/2. A row with a NaN is wrong.
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
    """The sum of all elements in float64, shape (1,), in the dtype of `rows`."""
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
