"""Batch normalisation, as Ioffe and Szegedy (2015) define it, with statistics that do not cancel.

For m rows x of a mini-batch, per channel (a channel is a column: the last axis; all other axes are rows):

    mean  = 1/m sum x                      var = 1/m sum (x - mean)^2
    x_norm = (x - mean) / sqrt(var + eps)  y   = gamma x_norm + beta

mean and var are those of the batch in training (`batch_norm`) and the running ones otherwise (`normalize`); in
`statistics.py` is how they are taken, and kept.
"""

from collections.abc import Iterator
from math import prod
from operator import add as plus
from typing import Any, NamedTuple

import numpy as np

from .._typing import Array
from ..arrays.dtypes import arithmetic_name, stored, widened
from ..arrays.namespaces import namespace
from ..errors import InputError
from ..runtime.op import Example, op
from .pointwise import (
    ACTIVATIONS,
    activate,
    activation_bound,
    check_activation,
    check_alike,
    check_floating,
    derivative,
)
from .statistics import bound_moments, check_moments, examples_moments, merge, moments, rows_of


def centred(x: Array, statistics: Array, eps: float) -> tuple[Array, Array]:
    """((x - hi) - lo, inv_std), wide: the mean as a pair of numbers, so that a large one does not cancel."""
    xp, x = namespace(x), widened(x)
    hi = xp.astype(statistics[1, :], x.dtype)
    lo = xp.astype(statistics[1, :] - xp.astype(hi, xp.float64), x.dtype)
    return (x - hi) - lo, xp.astype(1 / xp.sqrt(statistics[2, :] + eps), x.dtype)


def _affine_part(x_norm: Array, gamma: Array | None, beta: Array | None, add: Array | None) -> Array:
    z = x_norm if gamma is None else x_norm * gamma
    z = z if beta is None else z + beta
    return z if add is None else z + widened(add)


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
    """10 u (|gamma x_norm| + |beta| + |add| + |gamma|), and in float64 what one rounding of the mean is worth."""
    x_norm = np.abs(x.astype(np.float64) - statistics[1]) / np.sqrt(statistics[2] + eps)
    gamma = np.ones_like(statistics[1]) if gamma is None else np.abs(gamma)
    mean = 2.0**-53 / u * np.abs(statistics[1]) / np.sqrt(statistics[2] + eps)
    size = gamma * (x_norm + 1 + mean)
    return 10 * u * (size + (0 if beta is None else np.abs(beta)) + (0 if add is None else np.abs(add)))


def _bound_normalize(
    u: float, x: Array, statistics: Array, gamma: Array, beta: Array, add: Array = None, **options: Any
) -> Array:
    kind, slope, eps = (options.get(k, d) for k, d in (("activation", "identity"), ("slope", 0.01), ("eps", 1e-5)))
    error = _bound_z(u, x, statistics, gamma, beta, add, eps)
    d, inv_std = centred(x.astype(np.float64), statistics, eps)
    z = _affine_part(d * inv_std, gamma, beta, add)
    return activation_bound(u, error, activate(z, kind, slope), kind, slope, z)


def _check_arguments(owner: str, x: Array, gamma: Array, beta: Array, add: Array, options: dict[str, Any]) -> None:
    check_activation(owner, options.get("activation", "identity"), options.get("slope", 0.01))
    _check_eps(owner, options.get("eps", 1e-5))
    check_floating(owner, x=x, add=add, wide={"gamma": gamma, "beta": beta})
    channels = (x.shape[-1],) if x.ndim else ()
    for name, array, shape in (("gamma", gamma, channels), ("beta", beta, channels), ("add", add, tuple(x.shape))):
        _check_shape(owner, x, name, array, shape)


def _check_shape(owner: str, x: Array, name: str, array: Array | None, shape: tuple[int, ...]) -> None:
    if array is not None and tuple(array.shape) != shape:
        raise InputError(f"{owner}: {name} has shape {tuple(array.shape)}; x {tuple(x.shape)} needs {shape}")


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
        raise InputError(f"{owner}: statistics are {statistics.dtype}; they are float64 for every dtype of x")


def _check_eps(owner: str, eps: float) -> None:
    if not 0 <= eps < float("inf"):
        raise InputError(f"{owner}: eps {eps!r} is not a finite number from 0 up; 1e-5 is usual")


@op(
    family="batch_norm", examples=_examples_normalize, bound=_bound_normalize,
    check=_check_normalize)  # fmt: skip
def normalize(
    x: Array,
    statistics: Array,
    gamma: Array | None,
    beta: Array | None,
    add: Array | None = None,
    *,
    eps: float = 1e-5,
    activation: str = "identity",
    slope: float = 0.01,
) -> Array:
    """y = g(((x - hi) - lo) inv_std gamma + beta + add), with mean = hi + lo and inv_std = 1/sqrt(var + eps).

    x (..., C); statistics (3, C) float64; gamma, beta (C,) or None for 1 and 0; add like x or None; y like x. The sum
    is never folded into a x + b: with |mean|/std up to 1e6 in float32 the error stays within 10 u |y| + 10 u |gamma|,
    and a constant channel gives exactly g(beta).
    """
    d, inv_std = centred(x, statistics, eps)
    return stored(activate(_affine_part(d * inv_std, gamma, beta, add), activation, slope), x)


class BatchNormalized(NamedTuple):
    """y, and what it was normalised by: (count, mean, biased variance) of the batch, twice as in `Moments`."""

    y: Array
    batch: Array
    proposal: Array


def _examples_batch_norm(rng: Any, dtype: str) -> Iterator[Example]:
    for label, (x, _, *rest), options in _examples_normalize(rng, dtype):
        yield Example(label, (x, *rest), options)


def _bound_batch_norm(
    u: float, x: Array, gamma: Array, beta: Array, add: Array = None, **options: Any
) -> BatchNormalized:
    """For y that of `normalize`: what rounding the moments costs is of its size, 10 u |gamma| (1 + |x_norm|)."""
    batch = moments.reference(x.astype(np.float64)).batch
    return BatchNormalized(_bound_normalize(u, x, batch, gamma, beta, add, **options), *bound_moments(u, x))


def _check_batch_norm(x: Array, gamma: Array, beta: Array, add: Array = None, **options: Any) -> None:
    check_moments(x, owner="batch_norm")
    _check_arguments("batch_norm", x, gamma, beta, add, options)


@op(
    family="batch_norm", examples=_examples_batch_norm, bound=_bound_batch_norm,
    accumulates={"proposal": merge.reference}, check=_check_batch_norm)  # fmt: skip
def batch_norm(
    x: Array,
    gamma: Array | None,
    beta: Array | None,
    add: Array | None = None,
    *,
    eps: float = 1e-5,
    activation: str = "identity",
    slope: float = 0.01,
) -> BatchNormalized:
    """`normalize` by the `moments` of x itself: what training does. Its way back is `normalize_backward` by `batch`.

    Shapes and dtypes as there. A destination of `proposal` is merged into; `batch` is always this batch's own, and y
    depends on nothing else.
    """
    batch, proposal = moments.reference(x)
    y = normalize.reference(x, batch, gamma, beta, add, eps=eps, activation=activation, slope=slope)
    return BatchNormalized(y, batch, proposal)


class NormalizeGradients(NamedTuple):
    """Gradients of `normalize`; dadd is what reaches `add`; None where there was no such argument."""

    dx: Array
    dadd: Array | None
    dgamma: Array | None
    dbeta: Array | None


def _examples_backward(rng: Any, dtype: str) -> Iterator[Example]:
    for label, args, options in _examples_normalize(rng, dtype):
        x, statistics, gamma, beta, *add = args
        y = normalize.reference(*args, **options)
        dy = rng.standard_normal(x.shape).astype(dtype)
        for batch in (True, False):
            given = (dy, x, y, statistics, gamma, beta, *add)
            yield Example(f"{label}, batch statistics {batch}", given, {**options, "batch_statistics": batch})


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
    kind, slope, eps = (options.get(k, d) for k, d in (("activation", "identity"), ("slope", 0.01), ("eps", 1e-5)))
    d, inv_std = centred(x.astype(np.float64), statistics, eps)
    mean = 2.0**-53 / u * np.abs(statistics[1]) * inv_std
    h = np.abs(d * inv_std) + 1 + mean
    dy = np.abs(dy) * max(1.2, slope)
    if kind == "gelu":  # gelu'' is at most 0.8 (1 + ...): the error of z reaches dz
        dy = dy * (1 + _bound_z(u, x, statistics, gamma, beta, add, eps) / (10 * u))
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


@op(
    family="batch_norm", examples=_examples_backward, bound=_bound_backward,
    accumulates={"dx": plus, "dgamma": plus, "dbeta": plus}, check=_check_backward,
)  # fmt: skip
def normalize_backward(
    dy: Array,
    x: Array,
    y: Array,
    statistics: Array,
    gamma: Array | None,
    beta: Array | None,
    add: Array | None = None,
    *,
    eps: float = 1e-5,
    activation: str = "identity",
    slope: float = 0.01,
    batch_statistics: bool = True,
) -> NormalizeGradients:
    """With dz = dy g'(z), x_norm = (x - mean) inv_std, and m rows to a channel:

    dbeta = sum dz;  dgamma = sum dz x_norm;  dadd = dz;
    dx = gamma inv_std (dz - dbeta/m - x_norm dgamma/m), as mean and var are functions of x (Ioffe and Szegedy 2015,
    section 3); with `batch_statistics` false they are constants and dx = gamma inv_std dz. Shapes as in `normalize`; y
    = its output. dx, dgamma, dbeta may be added into destinations. dadd is a new array.
    """
    xp = namespace(x)
    rows, m = rows_of(x), prod(x.shape[:-1])
    d, inv_std = centred(x, statistics, eps)
    x_norm = d * inv_std
    z = _affine_part(x_norm, gamma, beta, add) if activation == "gelu" else None
    dz = derivative(widened(dy), widened(y), activation, slope, z)
    dbeta = xp.astype(xp.sum(dz, axis=rows, dtype=xp.float64), dz.dtype)
    dgamma = xp.astype(xp.sum(dz * x_norm, axis=rows, dtype=xp.float64), dz.dtype)
    dx = dz - dbeta / m - x_norm * (dgamma / m) if batch_statistics else dz
    dx = dx * (inv_std if gamma is None else gamma * inv_std)
    dadd = None if add is None else xp.asarray(stored(dz, x), copy=activation == "identity")
    return NormalizeGradients(stored(dx, x), dadd, None if gamma is None else dgamma, None if beta is None else dbeta)


def batch_normalization(x: Array, mean: Array, var: Array, beta: Array, gamma: Array, eps: float) -> Array:
    """y = gamma (x - mean) / sqrt(var + eps) + beta: `normalize` with the arguments of `tf.nn.batch_normalization`.

    x (..., C); mean, var (C,) of any floating dtype; beta, gamma (C,) or None; y like x. Errors: those of `normalize`.
    """
    xp = namespace(x)
    wide = [xp.astype(a, xp.float64) for a in (mean, var)]
    return normalize(x, xp.stack([xp.ones_like(wide[0]), *wide]), gamma, beta, eps=eps)
