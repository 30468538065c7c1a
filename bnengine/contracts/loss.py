"""The contracts of the losses and of `correct`: examples, error bounds, checks of arguments."""

from collections.abc import Iterator
from math import prod
from typing import Any

import numpy as np

from .._typing import Array
from ..arrays.dtypes import arithmetic_name
from ..arrays.namespaces import namespace
from ..errors import InputError
from ..ops import Example
from ..ops.loss import Loss, binary_cross_entropy, correct, mean_squared_error, softmax_cross_entropy
from ..validation import number
from ._contract import contract
from .arguments import check_floating


def _examples_softmax(rng: Any, dtype: str) -> Iterator[Example]:
    logits = (rng.standard_normal((7, 4)) * 3).astype(dtype)
    wide = arithmetic_name(dtype)
    codes, weights = rng.integers(0, 4, 7), rng.random(7).astype(wide)
    probabilities = rng.dirichlet(np.ones(4), 7).astype(wide)
    yield Example("integers", (logits, codes), {"divisor": 7})
    yield Example("probabilities", (logits, probabilities), {"divisor": 7})
    every = {"divisor": np.asarray([3.5], wide), "label_smoothing": 0.1}
    yield Example("weighted, smoothed", (logits, codes, rng.random(4).astype(wide), weights), every)
    yield Example("weighted probabilities", (logits, probabilities, rng.random(4).astype(wide), weights), every)
    yield Example("scaled", (logits, codes), {"divisor": 7, "scale": np.asarray([1024.0], wide)})
    yield Example("large logits", ((logits * 100).astype(dtype), codes), {"divisor": 7})
    yield Example("leading axes", (logits.reshape(7, 1, 4), codes.reshape(7, 1)), {"divisor": 7})


def _bound_softmax(
    u: float, logits: Array, target: Array, class_weights: Array = None, sample_weights: Array = None, *, divisor: Any,
    label_smoothing: float = 0.0, scale: Array | None = None,
) -> Loss:  # fmt: skip
    weight = (1 if class_weights is None else class_weights.max()) * np.ones(logits.shape[:-1])
    weight = weight * (1 if sample_weights is None else sample_weights.reshape(weight.shape))
    spread = (1 + np.abs(logits).max(-1)) * weight
    slope = (10 * u * spread / divisor)[..., None] * (1 if scale is None else scale)
    return Loss(10 * u * spread.sum().reshape(1) / divisor, slope + 0 * logits)


def _check_softmax(
    logits: Array, target: Array, class_weights: Array = None, sample_weights: Array = None, *,
    label_smoothing: float = 0.0, **_options: Any,
) -> None:  # fmt: skip
    xp = namespace(logits)
    name, rows = "softmax_cross_entropy", tuple(logits.shape[:-1])
    if logits.ndim < 2 or prod(logits.shape) == 0:
        raise InputError(f"{name}: logits must be (..., classes), all at least 1, got shape {tuple(logits.shape)}.")
    classes = logits.shape[-1]
    check_floating(name, logits=logits, wide={"class_weights": class_weights, "sample_weights": sample_weights})
    number(name, "label_smoothing", label_smoothing, least=0, below=1)
    if xp.isdtype(target.dtype, "integral"):
        if tuple(target.shape) != rows:
            raise InputError(f"{name}: integer targets must have shape {rows}, got {tuple(target.shape)}.")
        low, high = int(xp.min(target)), int(xp.max(target))
        if low < 0 or high >= classes:
            raise InputError(f"{name}: targets must be 0 to {classes - 1}, got {low} to {high}.")
    else:
        check_floating(name, logits=logits, wide={"target": target})
        if tuple(target.shape) != tuple(logits.shape):
            raise InputError(f"{name}: probabilities must have shape {tuple(logits.shape)}, got {tuple(target.shape)}.")
    if class_weights is not None and tuple(class_weights.shape) != (classes,):
        raise InputError(f"{name}: class_weights must have shape ({classes},), got {tuple(class_weights.shape)}.")
    if sample_weights is not None and tuple(sample_weights.shape) != rows:
        raise InputError(f"{name}: sample_weights must have shape {rows}, got {tuple(sample_weights.shape)}.")


contract(softmax_cross_entropy, examples=_examples_softmax, bound=_bound_softmax, check=_check_softmax)


def _examples_binary(rng: Any, dtype: str) -> Iterator[Example]:
    logits = (rng.standard_normal((7, 2)) * 3).astype(dtype)
    logits[0] = [90.0, -90.0]
    wide = arithmetic_name(dtype)
    target = rng.integers(0, 2, (7, 2)).astype(wide)
    yield Example("plain", (logits, target), {"divisor": 14})
    yield Example("weighted", (logits, target, rng.random(7).astype(wide)), {"divisor": np.asarray([3.0], wide)})
    yield Example("scaled", (logits, target), {"divisor": 14, "scale": np.asarray([512.0], wide)})


def _bound_binary(
    u: float, logits: Array, target: Array, sample_weights: Array = None, *, divisor: Any, scale: Array | None = None
) -> Loss:
    weight = 1 if sample_weights is None else sample_weights[..., None]
    spread = (1 + np.abs(logits) * (1 + np.abs(target))) * weight / divisor
    slope = 10 * u * (1 + np.abs(target)) * weight / divisor * (1 if scale is None else scale)
    return Loss(10 * u * spread.sum().reshape(1), slope + 0 * logits)


def _check_rows(name: str, prediction: Array, target: Array, sample_weights: Array | None) -> None:
    check_floating(name, prediction=prediction, wide={"target": target, "sample_weights": sample_weights})
    if prediction.ndim < 2 or prod(prediction.shape) == 0:
        raise InputError(
            f"{name}: prediction must be (..., outputs), all at least 1, got shape {tuple(prediction.shape)}."
        )
    if tuple(prediction.shape) != tuple(target.shape):
        raise InputError(
            f"{name}: target must have the shape of prediction {tuple(prediction.shape)}, got {tuple(target.shape)}."
        )
    if sample_weights is not None and tuple(sample_weights.shape) != tuple(prediction.shape[:-1]):
        shape = tuple(prediction.shape[:-1])
        raise InputError(f"{name}: sample_weights must have shape {shape}, got {tuple(sample_weights.shape)}.")


def _check_binary(logits: Array, target: Array, sample_weights: Array = None, **_options: Any) -> None:
    _check_rows("binary_cross_entropy", logits, target, sample_weights)


contract(binary_cross_entropy, examples=_examples_binary, bound=_bound_binary, check=_check_binary)


def _examples_squared(rng: Any, dtype: str) -> Iterator[Example]:
    wide = arithmetic_name(dtype)
    p, t = ((rng.standard_normal((7, 2)) * 3).astype(kind) for kind in (dtype, wide))
    yield Example("plain", (p, t), {"divisor": 14})
    yield Example("weighted", (p, t, rng.random(7).astype(wide)), {"divisor": np.asarray([3.0], wide)})
    yield Example("scaled", (p, t), {"divisor": 14, "scale": np.asarray([512.0], wide)})


def _bound_squared(
    u: float, prediction: Array, target: Array, sample_weights: Array = None, *, divisor: Any,
    scale: Array | None = None,
) -> Loss:  # fmt: skip
    weight = 1 if sample_weights is None else sample_weights[..., None]
    size = np.abs(prediction) + np.abs(target)
    slope = 10 * u * size * weight / divisor * (1 if scale is None else scale)
    return Loss(10 * u * (size**2 * weight / divisor).sum().reshape(1), slope)


def _check_squared(prediction: Array, target: Array, sample_weights: Array = None, **_options: Any) -> None:
    _check_rows("mean_squared_error", prediction, target, sample_weights)


contract(mean_squared_error, examples=_examples_squared, bound=_bound_squared, check=_check_squared)


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


contract(correct, examples=_examples_hits, bound=_bound_hits)
