"""A micro-batch out of the data set: what a step reads where all data lie in the memory of its device."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from .._typing import Array
from ..arrays.dtypes import arithmetic_name
from ..arrays.namespaces import namespace
from ..runtime.op import Example, op

POSITION, GROUP = 0, 1  # a cursor's places


class Gathered(NamedTuple):
    """The rows of a micro-batch and the divisor of its step."""

    x: Array
    target: Array
    weights: Array | None
    samples: Array
    normaliser: Array


def _examples(rng: Any, dtype: str) -> Iterator[Example]:
    n = 9
    wide = arithmetic_name(dtype)
    samples, order, normalisers = np.arange(n) * 7 + 2**33, rng.permutation(n), rng.random(4).astype(wide)
    classes, cursor = rng.integers(0, 5, n), np.asarray([2, 3])
    for label, features in (("odd width", (3,)), ("16 bytes", (8,)), ("image", (2, 2, 4))):
        x = rng.standard_normal((n, *features)).astype(dtype)
        weights = rng.random(n).astype(wide)
        yield Example(label, (x, classes, weights, samples, normalisers, order, cursor), {"rows": 4, "offset": 3})
    x, values = rng.standard_normal((n, 4)).astype(dtype), rng.standard_normal((n, 2)).astype(wide)
    x[0, 0] = np.nan
    yield Example("numbers, no weights", (x, values, None, samples, normalisers, order, cursor), {"rows": 7})
    x, pixels = rng.standard_normal((n, 2, 3, 4)).astype(dtype), rng.integers(0, 5, (n, 2, 3))
    each = rng.random((n, 2, 3)).astype(wide)
    yield Example("a target a pixel", (x, pixels, each, samples, normalisers, order, cursor), {"rows": 5})
    yield Example("one row", (x, classes, None, samples, normalisers, order, cursor), {"rows": 1, "offset": 6})


def _bound(u: float, x: Array, target: Array, weights: Array, *rest: Array, rows: int, offset: int = 0) -> Gathered:
    return Gathered(0, 0, None if weights is None else 0, 0, 0)


@op(family="gather", examples=_examples, bound=_bound)
def gather(
    x: Array, target: Array, weights: Array | None, samples: Array, normalisers: Array, order: Array, cursor: Array, *,
    rows: int, offset: int = 0,
) -> Gathered:  # fmt: skip
    """Rows order[p], ..., order[p + rows - 1] of each array, with p = cursor[0] + offset, and normalisers[cursor[1]].

    x (n, ...) floating; target (n, ...) int64 or floating; weights (n, ...) or None; samples, order (n,) int64;
    normalisers (groups,); cursor (2,) int64 = (position in the order, steps of the epoch). Bit for bit.
    """
    xp = namespace(x)
    places = cursor[POSITION : POSITION + 1] + xp.arange(offset, offset + rows, dtype=xp.int64)
    chosen = xp.take(order, places, axis=0)
    x, target, samples = (xp.take(a, chosen, axis=0) for a in (x, target, samples))
    weights = None if weights is None else xp.take(weights, chosen, axis=0)
    return Gathered(x, target, weights, samples, xp.take(normalisers, cursor[GROUP : GROUP + 1], axis=0))


def _raw_examples(rng: Any, dtype: str) -> Iterator[Example]:
    n, wide = 9, arithmetic_name(dtype)
    samples, order, normalisers = rng.permutation(20)[:n], rng.permutation(n), rng.random(4).astype(wide)
    classes, cursor, weights = rng.integers(0, 5, n), np.asarray([2, 3]), rng.random(n).astype(wide)
    for kind in ("uint8", "int16", "int32", "int64", "float32", "float64"):
        values = rng.standard_normal((20, 11)) * 90
        x = (np.abs(values) if kind == "uint8" else values).astype(kind)
        scales = rng.standard_normal(11) * 50, rng.random(11)
        yield Example(
            kind, (x, classes, weights, samples, normalisers, order, cursor, *scales), {"rows": 4, "offset": 3}
        )
        yield Example(f"{kind}, cast", (x, classes, None, samples, normalisers, order, cursor), {"rows": 7})
    x, values = rng.integers(0, 256, (20, 2, 3)).astype(np.uint8), rng.standard_normal((n, 2)).astype(wide)
    yield Example("image, one row", (x, values, None, samples, normalisers, order, cursor), {"rows": 1, "offset": 6})


def _raw_bound(
    u: float, x: Array, target: Array, weights: Array, samples: Array, normalisers: Array, order: Array, cursor: Array,
    mean: Array = None, inv_scale: Array = None, *, rows: int, offset: int = 0,
) -> Gathered:  # fmt: skip
    x = x[samples[order[cursor[POSITION] + offset :][:rows]]].astype(np.float64)
    scaled, between = (x, 0) if mean is None else ((x - mean) * inv_scale, (np.abs(x) + np.abs(mean)) * inv_scale)
    bound = u * np.abs(scaled) + 2.0**-52 * between  # float64's own two roundings, then that of the result
    return Gathered(bound, 0, None if weights is None else 0, 0, 0)


@op("bnengine.fused.cpu.gather_raw:gather_raw", examples=_raw_examples, bound=_raw_bound)
def gather_raw(
    x: Array, target: Array, weights: Array | None, samples: Array, normalisers: Array, order: Array, cursor: Array,
    mean: Array | None = None, inv_scale: Array | None = None, *, rows: int, offset: int = 0,
) -> Gathered:  # fmt: skip
    """`gather` from raw data that stay where they are: x_out = (x - mean) inv_scale in float64, rounded once.

    x (N, ...) of any real dtype, a mapped file perhaps, of which a batch takes rows samples[order[p]], ...; the rest as
    in `gather`. mean, inv_scale (features,) float64, or None for a cast alone. x_out has the dtype of the normalisers.
    """
    xp = namespace(samples)
    places = cursor[POSITION : POSITION + 1] + xp.arange(offset, offset + rows, dtype=xp.int64)
    chosen = xp.take(order, places, axis=0)
    target, samples = (xp.take(a, chosen, axis=0) for a in (target, samples))
    x = xp.take(x, samples, axis=0)
    if mean is not None:
        x = (xp.astype(x, xp.float64) - mean) * inv_scale
    weights = None if weights is None else xp.take(weights, chosen, axis=0)
    normaliser = xp.take(normalisers, cursor[GROUP : GROUP + 1], axis=0)
    return Gathered(xp.astype(x, normalisers.dtype), target, weights, samples, normaliser)
