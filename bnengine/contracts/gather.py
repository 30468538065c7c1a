"""The contracts of gather and gather_raw: examples and error bounds."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from .._typing import Array
from ..arrays.dtypes import arithmetic_name
from ..ops import Example
from ..ops.gather import POSITION, Gathered, gather, gather_raw
from ._contract import contract


def _examples(rng: Any, dtype: str) -> Iterator[Example]:
    n = 9
    wide = arithmetic_name(dtype)
    samples, order, divisors = np.arange(n) * 7 + 2**33, rng.permutation(n), rng.random(4).astype(wide)
    classes, cursor = rng.integers(0, 5, n), np.asarray([2, 3])
    for label, features in (("odd width", (3,)), ("16 bytes", (8,)), ("image", (2, 2, 4))):
        x = rng.standard_normal((n, *features)).astype(dtype)
        weights = rng.random(n).astype(wide)
        yield Example(label, (x, classes, weights, samples, divisors, order, cursor), {"rows": 4, "offset": 3})
    x, values = rng.standard_normal((n, 4)).astype(dtype), rng.standard_normal((n, 2)).astype(wide)
    x[0, 0] = np.nan
    yield Example("numbers, no weights", (x, values, None, samples, divisors, order, cursor), {"rows": 7})
    x, pixels = rng.standard_normal((n, 2, 3, 4)).astype(dtype), rng.integers(0, 5, (n, 2, 3))
    each = rng.random((n, 2, 3)).astype(wide)
    yield Example("a target a pixel", (x, pixels, each, samples, divisors, order, cursor), {"rows": 5})
    yield Example("one row", (x, classes, None, samples, divisors, order, cursor), {"rows": 1, "offset": 6})


def _bound(u: float, x: Array, target: Array, weights: Array, *rest: Array, rows: int, offset: int = 0) -> Gathered:
    return Gathered(0, 0, None if weights is None else 0, 0, 0)


contract(gather, examples=_examples, bound=_bound)


def _raw_examples(rng: Any, dtype: str) -> Iterator[Example]:
    n, wide = 9, arithmetic_name(dtype)
    samples, order, divisors = rng.permutation(20)[:n], rng.permutation(n), rng.random(4).astype(wide)
    classes, cursor, weights = rng.integers(0, 5, n), np.asarray([2, 3]), rng.random(n).astype(wide)
    for kind in ("uint8", "int16", "int32", "int64", "float32", "float64"):
        values = rng.standard_normal((20, 11)) * 90
        x = (np.abs(values) if kind == "uint8" else values).astype(kind)
        scales = rng.standard_normal(11) * 50, rng.random(11)
        yield Example(kind, (x, classes, weights, samples, divisors, order, cursor, *scales), {"rows": 4, "offset": 3})
        yield Example(f"{kind}, cast", (x, classes, None, samples, divisors, order, cursor), {"rows": 7})
    x, values = rng.integers(0, 256, (20, 2, 3)).astype(np.uint8), rng.standard_normal((n, 2)).astype(wide)
    yield Example("image, one row", (x, values, None, samples, divisors, order, cursor), {"rows": 1, "offset": 6})


def _raw_bound(
    u: float, x: Array, target: Array, weights: Array, samples: Array, divisors: Array, order: Array, cursor: Array,
    mean: Array = None, inv_scale: Array = None, *, rows: int, offset: int = 0,
) -> Gathered:  # fmt: skip
    x = x[samples[order[cursor[POSITION] + offset :][:rows]]].astype(np.float64)
    scaled, between = (x, 0) if mean is None else ((x - mean) * inv_scale, (np.abs(x) + np.abs(mean)) * inv_scale)
    bound = u * np.abs(scaled) + 2.0**-52 * between  # float64's own two roundings, then that of the result
    return Gathered(bound, 0, None if weights is None else 0, 0, 0)


contract(gather_raw, examples=_raw_examples, bound=_raw_bound)
