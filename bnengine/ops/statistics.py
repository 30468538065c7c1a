"""Statistics of channels: of a batch, of a step's proposal, of all that was seen; how they are taken and joined.

They have one form everywhere: a float64 array of three rows (count, mean, biased var), a column a channel. A batch's
moments, the proposal of an optimizer step and the running statistics all have it, so a network's are one (3, C)
buffer, and two of them merge by Chan, Golub and LeVeque (1979). Count 0 means "nothing seen" and changes nothing.
"""

from collections.abc import Iterator
from math import prod
from typing import Any, NamedTuple

import numpy as np

from .._typing import Array
from ..arrays.dtypes import NORMAL
from ..arrays.namespaces import namespace
from ..errors import InputError
from ..runtime.op import Example, op
from .pointwise import check_alike


def rows_of(x: Array) -> tuple[int, ...]:
    """The axes that a channel's values are spread over: all but the last."""
    return tuple(range(x.ndim - 1))


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


@op(family="batch_norm", examples=_examples_merge, bound=_bound_merge, check=_check_merge)
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


def examples_moments(rng: Any, dtype: str) -> Iterator[Example]:
    yield Example("ordinary", ((rng.standard_normal((9, 4)) * 2 + 30).astype(dtype),))
    yield Example("image", (rng.standard_normal((3, 4, 5, 2)).astype(dtype),))
    far = {"float16": 1e3, "bfloat16": 1e2}.get(dtype, 1e6)  # as far as std 1 is told from a constant
    yield Example(f"mean {far:.0e}, std 1".replace("e+0", "e"), ((far + rng.standard_normal((512, 3))).astype(dtype),))
    outlier = rng.standard_normal((64, 3)).astype(dtype)
    outlier[0] = 1e4 if dtype == "float16" else 1e6
    yield Example("first row an outlier", (outlier,))
    yield Example("constant", (np.full((7, 3), 0.1, dtype),))
    yield Example("subnormal", ((rng.standard_normal((6, 2)) * NORMAL[dtype] / 8).astype(dtype),))
    yield Example("two rows", (rng.standard_normal((2, 3)).astype(dtype),))


def bound_moments(u: float, x: Array) -> Moments:
    x = x.astype(np.float64).reshape(-1, x.shape[-1])
    std, spread = x.std(0), np.abs(x - x.mean(0)).mean(0)
    double, tiny = 2.0**-53, np.finfo(np.float64).tiny
    mean = 10 * u * spread + 10 * double * np.abs(x.mean(0)) + tiny
    rows = np.stack([0 * std, mean, 10 * u * std**2 + mean**2 + tiny])
    return Moments(rows, rows)


def check_moments(x: Array, *, owner: str = "moments") -> None:
    if x.ndim < 2 or prod(x.shape) == 0:
        raise InputError(
            f"{owner}: shape {tuple(x.shape)} has no rows of channels; give (rows, channels), both at least 1"
        )


@op(
    family="batch_norm", examples=examples_moments, bound=bound_moments,
    accumulates={"proposal": merge.reference}, check=check_moments,
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


@op(family="batch_norm", examples=_examples_commit, bound=_bound_commit, check=_check_commit)
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
