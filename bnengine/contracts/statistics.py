"""The contracts of merge, moments and commit: examples, error bounds, checks of arguments."""

from collections.abc import Iterator
from math import prod
from typing import Any

import numpy as np

from .._typing import Array
from ..arrays.dtypes import NORMAL
from ..arrays.namespaces import namespace
from ..errors import InputError
from ..ops import Example
from ..ops.statistics import Moments, commit, merge, moments
from ._contract import contract
from .arguments import check_alike


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
            kind = f"{a.dtype} of shape {tuple(a.shape)}"
            raise InputError(
                f"{owner}: {name} must be float64 (3, channels), got {kind}. The rows are count, mean, biased variance."
            )


def _check_merge(a: Array, b: Array) -> None:
    _check_statistics("merge", a=a, b=b)


contract(merge, examples=_examples_merge, bound=_bound_merge, check=_check_merge)


def examples_moments(rng: Any, dtype: str) -> Iterator[Example]:
    """Yield batches, ordinary and adversarial."""
    yield Example("ordinary", ((rng.standard_normal((9, 4)) * 2 + 30).astype(dtype),))
    yield Example("image", (rng.standard_normal((3, 4, 5, 2)).astype(dtype),))
    far = {"float16": 1e3, "bfloat16": 1e2}.get(dtype, 1e6)  # beyond it, std 1 rounds to a constant
    yield Example(f"mean {far:.0e}, std 1".replace("e+0", "e"), ((far + rng.standard_normal((512, 3))).astype(dtype),))
    outlier = rng.standard_normal((64, 3)).astype(dtype)
    outlier[0] = 1e4 if dtype == "float16" else 1e6
    yield Example("first row an outlier", (outlier,))
    yield Example("constant", (np.full((7, 3), 0.1, dtype),))
    yield Example("subnormal", ((rng.standard_normal((6, 2)) * NORMAL[dtype] / 8).astype(dtype),))
    yield Example("two rows", (rng.standard_normal((2, 3)).astype(dtype),))


def bound_moments(u: float, x: Array) -> Moments:
    """Return the bound: relative to the spread of each channel, and to its mean in float64."""
    x = x.astype(np.float64).reshape(-1, x.shape[-1])
    std, spread = x.std(0), np.abs(x - x.mean(0)).mean(0)
    double, tiny = 2.0**-53, np.finfo(np.float64).tiny
    mean = 10 * u * spread + 10 * double * np.abs(x.mean(0)) + tiny
    rows = np.stack([0 * std, mean, 10 * u * std**2 + mean**2 + tiny])
    return Moments(rows, rows)


def check_moments(x: Array, *, owner: str = "moments") -> None:
    """Raise InputError unless x has rows and channels."""
    if x.ndim < 2 or prod(x.shape) == 0:
        raise InputError(f"{owner}: x must be (rows, channels), both at least 1, got shape {tuple(x.shape)}.")


contract(moments, examples=examples_moments, bound=bound_moments, check=check_moments)


def _examples_commit(rng: Any, dtype: str) -> Iterator[Example]:
    running, pending = (np.abs(rng.standard_normal((3, 7))) + np.asarray([[4.0], [0.0], [0.0]]) for _ in range(2))
    pending[0, 0] = running[0, 1] = 0.0
    pending[0, 2] = 1.0
    decay = np.asarray([0.9, 0.9, 0.5, 0.0, -1.0, -1.0, 0.9])
    unbiased = np.asarray([True, False, True, False, True, False, True])
    for ok in (True, False):
        yield Example(f"ok {ok}", (running, pending, np.asarray([ok]), decay, unbiased))


def _bound_commit(u: float, running: Array, pending: Array, ok: Array, decay: Array, unbiased: Array) -> Array:
    return _bound_merge(u, running, 2 * pending)


def _check_commit(running: Array, pending: Array, ok: Array, decay: Array, unbiased: Array) -> None:
    _check_statistics("commit", running=running, pending=pending)
    for name, array, shape in (
        ("ok", ok, (1,)),
        ("decay", decay, running.shape[1:]),
        ("unbiased", unbiased, running.shape[1:]),
    ):
        if tuple(array.shape) != tuple(shape):
            raise InputError(f"commit: {name} must have shape {tuple(shape)}, got {tuple(array.shape)}.")


contract(commit, examples=_examples_commit, bound=_bound_commit, check=_check_commit)
