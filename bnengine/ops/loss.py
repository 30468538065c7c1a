"""Losses: the value and the gradient of the network's output in one pass.

`normaliser` divides both: the number of rows, or their total weight, of the *whole* optimizer step, so that the
gradients of micro-batches add up to the large batch's. It is a number or an array of shape (1,). `scale` (1,)
multiplies the gradient and not the value, so that small gradients do not vanish in 16 bits; `judge` takes it out again.
Outputs in 16 bits are computed with in float32, and targets, weights and the value are float32 then.
"""

from collections.abc import Iterator
from math import prod
from operator import add
from typing import Any, NamedTuple

import numpy as np

from .._typing import Array
from ..arrays.dtypes import arithmetic_name, stored, widened
from ..arrays.namespaces import namespace
from ..errors import InputError
from ..runtime.op import Example, op
from .pointwise import activate, check_floating


class Loss(NamedTuple):
    """value, shape (1,), and the gradient of the prediction; the value may be added into a destination."""

    value: Array
    dlogits: Array


def _total(rows: Array) -> Array:
    """The sum of all elements in float64, shape (1,), in the dtype of `rows`."""
    xp = namespace(rows)
    return xp.astype(xp.reshape(xp.sum(rows, dtype=xp.float64), (1,)), rows.dtype)


def _gradient(gradient: Array, scale: Array | None, like: Array) -> Array:
    """What the way back begins with: scaled, and stored like the network's output."""
    return stored(gradient if scale is None else gradient * scale, like)


def target_distribution(target: Array, like: Array, label_smoothing: float) -> Array:
    """Targets as probabilities (..., K): one-hot for integers, smoothed to (1 - s) t + s/K."""
    xp = namespace(like)
    classes = like.shape[-1]
    if xp.isdtype(target.dtype, "integral"):
        target = xp.expand_dims(target, axis=-1) == xp.arange(classes, dtype=target.dtype)
    target = xp.astype(target, like.dtype)
    return target if label_smoothing == 0 else target * (1 - label_smoothing) + label_smoothing / classes


def _examples_softmax(rng: Any, dtype: str) -> Iterator[Example]:
    logits = (rng.standard_normal((7, 4)) * 3).astype(dtype)
    wide = arithmetic_name(dtype)
    codes, weights = rng.integers(0, 4, 7), rng.random(7).astype(wide)
    probabilities = rng.dirichlet(np.ones(4), 7).astype(wide)
    yield Example("integers", (logits, codes), {"normaliser": 7})
    yield Example("probabilities", (logits, probabilities), {"normaliser": 7})
    every = {"normaliser": np.asarray([3.5], wide), "label_smoothing": 0.1}
    yield Example("weighted, smoothed", (logits, codes, rng.random(4).astype(wide), weights), every)
    yield Example("weighted probabilities", (logits, probabilities, rng.random(4).astype(wide), weights), every)
    yield Example("scaled", (logits, codes), {"normaliser": 7, "scale": np.asarray([1024.0], wide)})
    yield Example("large logits", ((logits * 100).astype(dtype), codes), {"normaliser": 7})
    yield Example("leading axes", (logits.reshape(7, 1, 4), codes.reshape(7, 1)), {"normaliser": 7})


def _bound_softmax(
    u: float,
    logits: Array,
    target: Array,
    class_weights: Array = None,
    sample_weights: Array = None,
    *,
    normaliser: Any,
    label_smoothing: float = 0.0,
    scale: Array | None = None,
) -> Loss:
    weight = (1 if class_weights is None else class_weights.max()) * np.ones(logits.shape[:-1])
    weight = weight * (1 if sample_weights is None else sample_weights.reshape(weight.shape))
    spread = (1 + np.abs(logits).max(-1)) * weight
    slope = (10 * u * spread / normaliser)[..., None] * (1 if scale is None else scale)
    return Loss(10 * u * spread.sum().reshape(1) / normaliser, slope + 0 * logits)


def _check_softmax(
    logits: Array,
    target: Array,
    class_weights: Array = None,
    sample_weights: Array = None,
    *,
    normaliser: Any,
    label_smoothing: float = 0.0,
    scale: Array | None = None,
) -> None:
    xp = namespace(logits)
    name, rows = "softmax_cross_entropy", tuple(logits.shape[:-1])
    if logits.ndim < 2 or prod(logits.shape) == 0:
        raise InputError(
            f"{name}: logits {tuple(logits.shape)} have no rows of classes; give (..., classes), all at least 1"
        )
    classes = logits.shape[-1]
    check_floating(name, logits=logits, wide={"class_weights": class_weights, "sample_weights": sample_weights})
    if not 0 <= label_smoothing < 1:
        raise InputError(f"{name}: label_smoothing {label_smoothing!r} is not in [0, 1)")
    if xp.isdtype(target.dtype, "integral"):
        if tuple(target.shape) != rows:
            raise InputError(f"{name}: integer targets {tuple(target.shape)} do not fit logits {tuple(logits.shape)}")
        low, high = int(xp.min(target)), int(xp.max(target))
        if low < 0 or high >= classes:
            raise InputError(
                f"{name}: targets from {low} to {high} for {classes} classes; they must be 0 to {classes - 1}"
            )
    else:
        check_floating(name, logits=logits, wide={"target": target})
        if tuple(target.shape) != tuple(logits.shape):
            raise InputError(f"{name}: probabilities {tuple(target.shape)} do not fit logits {tuple(logits.shape)}")
    if class_weights is not None and tuple(class_weights.shape) != (classes,):
        raise InputError(f"{name}: class_weights {tuple(class_weights.shape)}; {classes} classes need ({classes},)")
    if sample_weights is not None and tuple(sample_weights.shape) != rows:
        raise InputError(f"{name}: sample_weights {tuple(sample_weights.shape)}; the rows need {rows}")


@op(family="loss", examples=_examples_softmax, bound=_bound_softmax, accumulates={"value": add}, check=_check_softmax)
def softmax_cross_entropy(
    logits: Array,
    target: Array,
    class_weights: Array | None = None,
    sample_weights: Array | None = None,
    *,
    normaliser: Any,
    label_smoothing: float = 0.0,
    scale: Array | None = None,
) -> Loss:
    """value = -sum_i v_i sum_k c_k t_ik log q_ik / normaliser, with q = softmax(logits) and t the (smoothed) targets.

    dlogits = scale v (q sum_k c_k t_k - c t) / normaliser. logits (..., K); target (...) integers from 0 to K - 1 or
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
    dlogits = (e / total * xp.sum(t, axis=-1, keepdims=True) - t) / normaliser
    return Loss(_total(surprise) / normaliser, _gradient(dlogits, scale, logits))


def _examples_binary(rng: Any, dtype: str) -> Iterator[Example]:
    logits = (rng.standard_normal((7, 2)) * 3).astype(dtype)
    logits[0] = [90.0, -90.0]
    wide = arithmetic_name(dtype)
    target = rng.integers(0, 2, (7, 2)).astype(wide)
    yield Example("plain", (logits, target), {"normaliser": 14})
    yield Example("weighted", (logits, target, rng.random(7).astype(wide)), {"normaliser": np.asarray([3.0], wide)})
    yield Example("scaled", (logits, target), {"normaliser": 14, "scale": np.asarray([512.0], wide)})


def _bound_binary(
    u: float, logits: Array, target: Array, sample_weights: Array = None, *, normaliser: Any, scale: Array | None = None
) -> Loss:
    weight = 1 if sample_weights is None else sample_weights[..., None]
    spread = (1 + np.abs(logits) * (1 + np.abs(target))) * weight / normaliser
    slope = 10 * u * (1 + np.abs(target)) * weight / normaliser * (1 if scale is None else scale)
    return Loss(10 * u * spread.sum().reshape(1), slope + 0 * logits)


def _check_rows(name: str, prediction: Array, target: Array, sample_weights: Array | None) -> None:
    check_floating(name, prediction=prediction, wide={"target": target, "sample_weights": sample_weights})
    if prediction.ndim < 2 or prod(prediction.shape) == 0:
        raise InputError(
            f"{name}: prediction {tuple(prediction.shape)} has no rows; give (..., outputs), all at least 1"
        )
    if tuple(prediction.shape) != tuple(target.shape):
        raise InputError(
            f"{name}: prediction {tuple(prediction.shape)} and target {tuple(target.shape)} must be of one shape"
        )
    if sample_weights is not None and tuple(sample_weights.shape) != tuple(prediction.shape[:-1]):
        shape = tuple(prediction.shape[:-1])
        raise InputError(f"{name}: sample_weights {tuple(sample_weights.shape)}; the rows need {shape}")


def _check_binary(logits: Array, target: Array, sample_weights: Array = None, **_options: Any) -> None:
    _check_rows("binary_cross_entropy", logits, target, sample_weights)


@op(family="loss", examples=_examples_binary, bound=_bound_binary, accumulates={"value": add}, check=_check_binary)
def binary_cross_entropy(
    logits: Array, target: Array, sample_weights: Array | None = None, *, normaliser: Any, scale: Array | None = None
) -> Loss:
    """value = sum v (max(l, 0) - l t + log(1 + e^-|l|)) / normaliser;  dlogits = scale v (sigmoid(l) - t) / normaliser.

    logits and target (..., K), target in [0, 1]; sample_weights v (...) or None. Each output is a question of its own.
    """
    xp, like, logits = namespace(logits), logits, widened(logits)
    v = 1 if sample_weights is None else xp.expand_dims(sample_weights, axis=-1)
    positive = xp.where(logits < 0, xp.zeros_like(logits), logits)
    surprise = positive - logits * target + xp.log1p(xp.exp(-xp.abs(logits)))
    slope = (activate(logits, "sigmoid") - target) * v / normaliser
    return Loss(_total(surprise * v) / normaliser, _gradient(slope, scale, like))


def _examples_squared(rng: Any, dtype: str) -> Iterator[Example]:
    wide = arithmetic_name(dtype)
    p, t = ((rng.standard_normal((7, 2)) * 3).astype(kind) for kind in (dtype, wide))
    yield Example("plain", (p, t), {"normaliser": 14})
    yield Example("weighted", (p, t, rng.random(7).astype(wide)), {"normaliser": np.asarray([3.0], wide)})
    yield Example("scaled", (p, t), {"normaliser": 14, "scale": np.asarray([512.0], wide)})


def _bound_squared(
    u: float, prediction: Array, target: Array, sample_weights: Array = None, *, normaliser: Any,
    scale: Array | None = None,
) -> Loss:  # fmt: skip
    weight = 1 if sample_weights is None else sample_weights[..., None]
    size = np.abs(prediction) + np.abs(target)
    slope = 10 * u * size * weight / normaliser * (1 if scale is None else scale)
    return Loss(10 * u * (size**2 * weight / normaliser).sum().reshape(1), slope)


def _check_squared(prediction: Array, target: Array, sample_weights: Array = None, **_options: Any) -> None:
    _check_rows("mean_squared_error", prediction, target, sample_weights)


@op(family="loss", examples=_examples_squared, bound=_bound_squared, accumulates={"value": add}, check=_check_squared)
def mean_squared_error(
    prediction: Array, target: Array, sample_weights: Array | None = None, *, normaliser: Any,
    scale: Array | None = None,
) -> Loss:  # fmt: skip
    """value = sum v (p - t)^2 / normaliser;  gradient = 2 scale v (p - t) / normaliser; p, t (..., K)."""
    xp = namespace(prediction)
    v = 1 if sample_weights is None else xp.expand_dims(sample_weights, axis=-1)
    error = widened(prediction) - target
    return Loss(_total(error**2 * v) / normaliser, _gradient(error * v * 2 / normaliser, scale, prediction))


def _examples_hits(rng: Any, dtype: str) -> Iterator[Example]:
    logits, codes = (rng.standard_normal((9, 4)) * 3).astype(dtype), rng.integers(0, 4, 9)
    codes[:4] = logits[:4].argmax(-1)
    logits[8, 1] = np.nan
    yield Example("classes", (logits, codes))
    wide = arithmetic_name(dtype)
    yield Example("probabilities", (logits, rng.dirichlet(np.ones(4), 9).astype(wide)))
    yield Example("yes or no", (logits[:, :1], (rng.random((9, 1)) < 0.5).astype(wide)))


def _bound_hits(u: float, output: Array, target: Array) -> Array:
    return 0


@op(family="loss", examples=_examples_hits, bound=_bound_hits, accumulates={"out": add})
def hits(output: Array, target: Array) -> Array:
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
