"""Batch normalisation, as Ioffe and Szegedy (2015) define it, with statistics that do not cancel.

For m rows x of a mini-batch, per channel (a channel is a column: the last axis; all other axes are rows):

    mean  = 1/m sum x                      var = 1/m sum (x - mean)^2
    x_norm = (x - mean) / sqrt(var + eps)  y   = gamma x_norm + beta

Statistics have one form everywhere: a float64 array of three rows (count, mean, biased var), a column a channel. A
batch's moments, the proposal of an optimizer step and the running statistics all have it, so a network's are one (3,
C) buffer, and two of them merge by Chan, Golub and LeVeque (1979). Count 0 means "nothing seen" and changes nothing.
"""

from collections.abc import Iterator
from math import prod
from operator import add as plus
from typing import Any, NamedTuple

import numpy as np

from .._typing import Array
from ..errors import InputError
from ..namespaces import namespace
from ._op import Example, op
from .pointwise import (
    ACTIVATIONS,
    activate,
    activation_bound,
    check_activation,
    check_alike,
    check_floating,
    derivative,
)


def rows_of(x: Array) -> tuple[int, ...]:
    """The axes that a channel's values are spread over: all but the last."""
    return tuple(range(x.ndim - 1))


# -- statistics


def _examples_merge(rng: Any, dtype: str) -> Iterator[Example]:
    a, b = (np.abs(rng.standard_normal((3, 6))) + np.asarray([[4.0], [0.0], [0.0]]) for _ in range(2))
    a[0, 0] = b[0, 1] = a[0, 2] = b[0, 2] = 0.0
    yield Example("some empty", (a, b))


def _bound_merge(u: float, a: Array, b: Array) -> Array:
    size = np.abs(a) + np.abs(b)
    size[2] += size[1] ** 2
    return 10 * 2.0**-53 * size


def _check_statistics(owner: str, **statistics: Array) -> None:
    check_alike(owner, **statistics)
    for name, a in statistics.items():
        if a.ndim != 2 or a.shape[0] != 3 or a.dtype != namespace(a).float64:
            given = f"{a.dtype} of shape {tuple(a.shape)}"
            raise InputError(
                f"{owner}: {name} is {given}; statistics are float64 (3, channels): count, mean, biased variance"
            )


def _check_merge(a: Array, b: Array) -> None:
    _check_statistics("merge", a=a, b=b)


@op("bnengine.fused.cuda.batch_norm:merge", examples=_examples_merge, bound=_bound_merge, check=_check_merge)
def merge(a: Array, b: Array) -> Array:
    """Statistics of the union of two samples, exactly as if all rows had been seen at once.

    n = n_a + n_b;  delta = mean_b - mean_a;  mean = mean_a + delta n_b/n;
    var = var_a n_a/n + var_b n_b/n + delta^2 n_a n_b/n^2. Both (3, C) float64. Chan, Golub, LeVeque (1979), eq. 2.1.
    """
    xp = namespace(a)
    n = a[0, :] + b[0, :]
    share = b[0, :] / xp.where(n > 0, n, xp.ones_like(n))
    delta = b[1, :] - a[1, :]
    mean = a[1, :] + delta * share
    var = a[2, :] + share * (b[2, :] - a[2, :]) + delta**2 * share * (1 - share)
    merged = xp.stack([n, mean, var])
    return xp.where(b[0, :] > 0, xp.where(a[0, :] > 0, merged, b), a)


class Moments(NamedTuple):
    """(count, mean, biased variance) of a batch, twice: they part where the proposal is merged into a destination."""

    batch: Array
    proposal: Array


def _examples_moments(rng: Any, dtype: str) -> Iterator[Example]:
    yield Example("ordinary", ((rng.standard_normal((9, 4)) * 2 + 30).astype(dtype),))
    yield Example("image", (rng.standard_normal((3, 4, 5, 2)).astype(dtype),))
    yield Example("mean 1e6, std 1", ((1e6 + rng.standard_normal((512, 3))).astype(dtype),))
    outlier = rng.standard_normal((64, 3)).astype(dtype)
    outlier[0] = 1e6
    yield Example("first row an outlier", (outlier,))
    yield Example("constant", (np.full((7, 3), 0.1, dtype),))
    yield Example("subnormal", ((rng.standard_normal((6, 2)) * np.finfo(dtype).tiny / 8).astype(dtype),))
    yield Example("two rows", (rng.standard_normal((2, 3)).astype(dtype),))


def _bound_moments(u: float, x: Array) -> Moments:
    x = x.astype(np.float64).reshape(-1, x.shape[-1])
    std, spread = x.std(0), np.abs(x - x.mean(0)).mean(0)
    double, tiny = 2.0**-53, np.finfo(np.float64).tiny
    mean = 10 * u * spread + 10 * double * np.abs(x.mean(0)) + tiny
    rows = np.stack([0 * std, mean, 10 * u * std**2 + mean**2 + tiny])
    return Moments(rows, rows)


def _check_moments(x: Array) -> None:
    if x.ndim < 2 or prod(x.shape) == 0:
        raise InputError(
            f"moments: shape {tuple(x.shape)} has no rows of channels; give (rows, channels), both at least 1"
        )


@op(
    "bnengine.fused.cuda.batch_norm:moments",
    examples=_examples_moments, bound=_bound_moments, accumulates={"proposal": merge.reference}, check=_check_moments,
)  # fmt: skip
def moments(x: Array) -> Moments:
    """Count, mean and biased variance of each channel of x, shape (..., C), as float64 (3, C).

    About a pivot p = fl(mean x):  s = mean(x - p);  mean = p + s;  var = mean((x - p - s)^2). The correction s takes
    out what the rounding of p left (Chan, Golub, LeVeque 1983), so neither a large mean nor an outlier costs digits,
    and a constant channel has its own value as mean. A destination of `proposal` is merged into; `batch` is always
    this batch's own.
    """
    xp = namespace(x)
    rows = rows_of(x)
    wide = xp.astype(x, xp.float64)
    pivot = xp.mean(wide, axis=rows, keepdims=True)
    d = wide - pivot
    shift = xp.mean(d, axis=rows, keepdims=True)
    mean = xp.reshape(pivot + shift, (-1,))
    var = xp.mean((d - shift) ** 2, axis=rows)
    batch = xp.stack([xp.full_like(mean, prod(x.shape[:-1])), mean, var])
    return Moments(batch, batch)


def _examples_commit(rng: Any, dtype: str) -> Iterator[Example]:
    running, proposal = (np.abs(rng.standard_normal((3, 7))) + np.asarray([[4.0], [0.0], [0.0]]) for _ in range(2))
    proposal[0, 0] = running[0, 1] = 0.0
    proposal[0, 2] = 1.0
    decay = np.asarray([0.9, 0.9, 0.5, 0.0, -1.0, -1.0, 0.9])
    unbiased = np.asarray([True, False, True, False, True, False, True])
    for ok in (True, False):
        yield Example(f"ok {ok}", (running, proposal, np.asarray([ok]), decay, unbiased))


def _bound_commit(u: float, running: Array, proposal: Array, ok: Array, decay: Array, unbiased: Array) -> Array:
    return _bound_merge(u, running, 2 * proposal)


def _check_commit(running: Array, proposal: Array, ok: Array, decay: Array, unbiased: Array) -> None:
    _check_statistics("commit", running=running, proposal=proposal)
    for name, array, shape in (
        ("ok", ok, (1,)),
        ("decay", decay, running.shape[1:]),
        ("unbiased", unbiased, running.shape[1:]),
    ):
        if tuple(array.shape) != tuple(shape):
            raise InputError(f"commit: {name} has shape {tuple(array.shape)}; it must be {tuple(shape)}")


@op("bnengine.fused.cuda.batch_norm:commit", examples=_examples_commit, bound=_bound_commit, check=_check_commit)
def commit(running: Array, proposal: Array, ok: Array, decay: Array, unbiased: Array) -> Array:
    """Running statistics after one optimizer step; the old ones, bit for bit, if not `ok` or nothing was proposed.

    mean <- decay mean + (1 - decay) mean_batch;  var <- decay var + (1 - decay) var_batch m/(m - 1);  count <- count +
    m.
    `unbiased` (C,) bool: the factor m/(m - 1) of the 2015 paper (Algorithm 2, step 10), or the biased variance itself.
    `decay` (C,) float64: the share of the old value kept; -1: the batches are merged exactly by `merge`, without
    forgetting.
    """
    xp = namespace(running)
    n = proposal[0, :]
    correction = xp.where(unbiased & (n > 1), n / xp.where(n > 1, n - 1, xp.ones_like(n)), xp.ones_like(n))
    mean = decay * running[1, :] + (1 - decay) * proposal[1, :]
    var = decay * running[2, :] + (1 - decay) * (proposal[2, :] * correction)
    averaged = xp.stack([running[0, :] + n, mean, var])
    new = xp.where(decay < 0, merge.reference(running, proposal), averaged)
    return xp.where(ok & (n > 0), new, running)


# -- normalisation


def centred(x: Array, statistics: Array, eps: float) -> tuple[Array, Array]:
    """((x - hi) - lo, inv_std) in x's dtype: the mean as a pair of numbers, so that a large one does not cancel."""
    xp = namespace(x)
    hi = xp.astype(statistics[1, :], x.dtype)
    lo = xp.astype(statistics[1, :] - xp.astype(hi, xp.float64), x.dtype)
    return (x - hi) - lo, xp.astype(1 / xp.sqrt(statistics[2, :] + eps), x.dtype)


def _affine_part(x_norm: Array, gamma: Array | None, beta: Array | None, add: Array | None) -> Array:
    z = x_norm if gamma is None else x_norm * gamma
    z = z if beta is None else z + beta
    return z if add is None else z + add


def _examples_normalize(rng: Any, dtype: str) -> Iterator[Example]:
    def draw(*shape: int) -> Array:
        return rng.standard_normal(shape).astype(dtype)

    for kind in ACTIVATIONS:
        x = draw(9, 4) * 2 + 30
        yield Example(
            f"{kind}, add",
            (x, moments.reference(x).batch, draw(4), draw(4), draw(9, 4)),
            {"activation": kind, "slope": 0.2},
        )
    for label, (x,), _ in _examples_moments(rng, dtype):
        c = x.shape[-1]
        yield Example(label, (x, moments.reference(x).batch, draw(c), draw(c)))
    x = draw(5, 3)
    yield Example("neither gamma nor beta", (x, moments.reference(x).batch, None, None))
    yield Example("no beta, other eps", (x, moments.reference(x).batch, draw(3), None), {"eps": 0.1})


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
    check_activation(owner, options.get("activation", "identity"), options.get("slope", 0.01))
    _check_eps(owner, options.get("eps", 1e-5))
    check_floating(owner, x=x, gamma=gamma, beta=beta, add=add)
    channels = (x.shape[-1],) if x.ndim else ()
    for name, array, shape in (
        ("statistics", statistics, (3, *channels)),
        ("gamma", gamma, channels),
        ("beta", beta, channels),
        ("add", add, tuple(x.shape)),
    ):
        if array is not None and tuple(array.shape) != shape:
            raise InputError(f"{owner}: {name} has shape {tuple(array.shape)}; x {tuple(x.shape)} needs {shape}")
    if statistics.dtype != namespace(statistics).float64:
        raise InputError(f"{owner}: statistics are {statistics.dtype}; they are float64 for every dtype of x")


def _check_eps(owner: str, eps: float) -> None:
    if not 0 <= eps < float("inf"):
        raise InputError(f"{owner}: eps {eps!r} is not a finite number from 0 up; 1e-5 is usual")


@op(
    "bnengine.fused.cuda.batch_norm:normalize", examples=_examples_normalize, bound=_bound_normalize,
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
    return activate(_affine_part(d * inv_std, gamma, beta, add), activation, slope)


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
    "bnengine.fused.cuda.batch_norm:normalize_backward", examples=_examples_backward, bound=_bound_backward,
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
    dz = derivative(dy, y, activation, slope, z)
    dbeta = xp.astype(xp.sum(dz, axis=rows, dtype=xp.float64), x.dtype)
    dgamma = xp.astype(xp.sum(dz * x_norm, axis=rows, dtype=xp.float64), x.dtype)
    dx = dz - dbeta / m - x_norm * (dgamma / m) if batch_statistics else dz
    dx = dx * (inv_std if gamma is None else gamma * inv_std)
    dadd = None if add is None else xp.asarray(dz, copy=activation == "identity")
    return NormalizeGradients(dx, dadd, None if gamma is None else dgamma, None if beta is None else dbeta)


def batch_normalization(x: Array, mean: Array, var: Array, beta: Array, gamma: Array, eps: float) -> Array:
    """y = gamma (x - mean) / sqrt(var + eps) + beta: `normalize` with the arguments of `tf.nn.batch_normalization`.

    x (..., C); mean, var (C,) of any floating dtype; beta, gamma (C,) or None; y like x. Errors: those of `normalize`.
    """
    xp = namespace(x)
    wide = [xp.astype(a, xp.float64) for a in (mean, var)]
    return normalize(x, xp.stack([xp.ones_like(wide[0]), *wide]), gamma, beta, eps=eps)
