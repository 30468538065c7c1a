"""The contracts of normalize and batch_norm, and of their gradients: examples, error bounds, checks of arguments."""

from collections.abc import Iterator
from math import prod
from typing import Any

import numpy as np

from .._typing import Array
from ..arrays.dtypes import arithmetic_name
from ..arrays.namespaces import namespace
from ..errors import InputError
from ..ops import Example
from ..ops.activations import ACTIVATIONS, activate, check_activation
from ..ops.batch_norm import (
    BatchNormalized,
    NormalizeGradients,
    batch_norm,
    normalize,
    normalize_backward,
    normalized,
    scaled_and_shifted,
)
from ..ops.statistics import moments, rows_of
from ..validation import number
from ._contract import contract
from .activations import activation_bound, sensitivity_of
from .arguments import check_alike, check_floating
from .statistics import bound_moments, check_moments, examples_moments


def _examples_normalize(rng: Any, dtype: str) -> Iterator[Example]:
    def draw(*shape: int) -> Array:
        return rng.standard_normal(shape).astype(dtype)

    def affine(size: int) -> Array:
        return rng.standard_normal(size).astype(arithmetic_name(dtype))

    for kind in ACTIVATIONS:
        x = (draw(9, 4) * 2 + 30).astype(dtype)
        yield Example(
            f"{kind}, add",
            (x, moments.reference(x).batch, affine(4), affine(4), draw(9, 4)),
            {"activation": kind, "slope": 0.2},
        )
    for label, (x,), _ in examples_moments(rng, dtype):
        c = x.shape[-1]
        yield Example(label, (x, moments.reference(x).batch, affine(c), affine(c)))
    x = draw(5, 3)
    yield Example("neither gamma nor beta", (x, moments.reference(x).batch, None, None))
    yield Example("no beta, other eps", (x, moments.reference(x).batch, affine(3), None), {"eps": 0.1})


def _bound_z(u: float, x: Array, statistics: Array, gamma: Array, beta: Array, add: Array, eps: float) -> Array:
    """10 u (|gamma x_norm| + |beta| + |add| + |gamma|), plus, in float64, one rounding of the mean."""
    x_norm = np.abs(x.astype(np.float64) - statistics[1]) / np.sqrt(statistics[2] + eps)
    gamma = np.ones_like(statistics[1]) if gamma is None else np.abs(gamma)
    mean = 2.0**-53 / u * np.abs(statistics[1]) / np.sqrt(statistics[2] + eps)
    size = gamma * (x_norm + 1 + mean)
    return 10 * u * (size + (0 if beta is None else np.abs(beta)) + (0 if add is None else np.abs(add)))


def _bound_normalize(
    u: float, x: Array, statistics: Array, gamma: Array, beta: Array, add: Array = None, **options: Any
) -> Array:
    kind, slope, eps = options.get("activation", "identity"), options.get("slope"), options.get("eps", 1e-5)
    error = _bound_z(u, x, statistics, gamma, beta, add, eps)
    x_norm, _ = normalized(x.astype(np.float64), statistics, eps)
    z = scaled_and_shifted(x_norm, gamma, beta, add)
    return activation_bound(u, error, activate(z, kind, slope), kind, slope, z)


def _check_arguments(owner: str, x: Array, gamma: Array, beta: Array, add: Array, options: dict[str, Any]) -> None:
    check_activation(owner, options.get("activation", "identity"), options.get("slope"))
    number(owner, "eps", options.get("eps", 1e-5), least=0, cure="1e-5 is usual.")
    check_floating(owner, x=x, add=add, wide={"gamma": gamma, "beta": beta})
    channels = (x.shape[-1],) if x.ndim else ()
    for name, array, shape in (("gamma", gamma, channels), ("beta", beta, channels), ("add", add, tuple(x.shape))):
        _check_shape(owner, x, name, array, shape)


def _check_shape(owner: str, x: Array, name: str, array: Array | None, shape: tuple[int, ...]) -> None:
    if array is not None and tuple(array.shape) != shape:
        raise InputError(f"{owner}: {name} must have shape {shape} for x {tuple(x.shape)}, got {tuple(array.shape)}.")


def _check_normalize(
    x: Array,
    statistics: Array,
    gamma: Array,
    beta: Array,
    add: Array = None,
    *,
    owner: str = "normalize",
    **options: Any,
) -> None:
    _check_arguments(owner, x, gamma, beta, add, options)
    _check_shape(owner, x, "statistics", statistics, (3, *x.shape[-1:]))
    if statistics.dtype != namespace(statistics).float64:
        raise InputError(f"{owner}: statistics must be float64 for every dtype of x, got {statistics.dtype}.")


contract(normalize, examples=_examples_normalize, bound=_bound_normalize, check=_check_normalize)


def _examples_batch_norm(rng: Any, dtype: str) -> Iterator[Example]:
    for label, (x, _, *rest), options in _examples_normalize(rng, dtype):
        yield Example(label, (x, *rest), options)


def _bound_batch_norm(
    u: float, x: Array, gamma: Array, beta: Array, add: Array = None, **options: Any
) -> BatchNormalized:
    """For y the bound of `normalize`, which covers the rounding of the moments: 10 u |gamma| (1 + |x_norm|)."""
    batch = moments.reference(x.astype(np.float64)).batch
    return BatchNormalized(_bound_normalize(u, x, batch, gamma, beta, add, **options), *bound_moments(u, x))


def _check_batch_norm(x: Array, gamma: Array, beta: Array, add: Array = None, **options: Any) -> None:
    check_moments(x, owner="batch_norm")
    _check_arguments("batch_norm", x, gamma, beta, add, options)


contract(batch_norm, examples=_examples_batch_norm, bound=_bound_batch_norm, check=_check_batch_norm)


def _examples_backward(rng: Any, dtype: str) -> Iterator[Example]:
    for label, args, options in _examples_normalize(rng, dtype):
        x, statistics, gamma, beta, *add = args
        y = normalize.reference(*args, **options)
        dy = rng.standard_normal(x.shape).astype(dtype)
        for batch in (True, False):
            inputs = (dy, x, y, statistics, gamma, beta, *add)
            yield Example(f"{label}, batch statistics {batch}", inputs, {**options, "batch_statistics": batch})


def _bound_backward(
    u: float,
    dy: Array,
    x: Array,
    y: Array,
    statistics: Array,
    gamma: Array,
    beta: Array,
    add: Array = None,
    **options: Any,
) -> NormalizeGradients:
    kind, slope, eps = options.get("activation", "identity"), options.get("slope"), options.get("eps", 1e-5)
    x_norm, inv_std = normalized(x.astype(np.float64), statistics, eps)
    mean = 2.0**-53 / u * np.abs(statistics[1]) * inv_std
    h = np.abs(x_norm) + 1 + mean
    sensitivity = sensitivity_of(kind, slope)
    dy = np.abs(dy) * sensitivity.steepest
    if ACTIVATIONS[kind].reads == "z":  # its error reaches dz
        size = _bound_z(u, x, statistics, gamma, beta, add, eps) / (10 * u)
        dy = dy * (1 + max(1.0, sensitivity.curvature) * size)
    rows, m = rows_of(x), prod(x.shape[:-1])
    dgamma, dbeta = np.sum(dy * h, axis=rows), np.sum(dy, axis=rows)
    scale = inv_std if gamma is None else np.abs(gamma) * inv_std
    dx = scale * (dy + dbeta / m + h * dgamma / m)
    dadd, dg, db = None if add is None else 10 * u * dy, 10 * u * dgamma, 10 * u * dbeta
    return NormalizeGradients(10 * u * dx, dadd, None if gamma is None else dg, None if beta is None else db)


def _check_backward(
    dy: Array, x: Array, y: Array, statistics: Array, gamma: Array, beta: Array, add: Array = None, **options: Any
) -> None:
    check_floating("normalize_backward", dy=dy, x=x, y=y)
    check_alike("normalize_backward", dy=dy, x=x, y=y)
    _check_normalize(x, statistics, gamma, beta, add, owner="normalize_backward", **options)


contract(normalize_backward, examples=_examples_backward, bound=_bound_backward, check=_check_backward)
