"""Dropout, with a mask that depends on what is dropped and not on where it stands in the batch."""

from collections.abc import Iterator
from math import prod
from operator import add
from typing import Any, NamedTuple

import numpy as np

from .._typing import Array
from ..arrays.dtypes import stored, widened
from ..arrays.namespaces import namespace
from ..arrays.random import keep_mask
from ..errors import InputError
from ..runtime.op import Example, op
from .pointwise import check_alike, check_floating


class Dropped(NamedTuple):
    """The output of `dropout` and its mask, which the way back needs."""

    out: Array
    keep: Array


def _examples(rng: Any, dtype: str) -> Iterator[Example]:
    options = {"seed": 2**40 + 7, "layer": 1, "rate": 0.3}
    step, samples = np.asarray([11]), np.asarray([5, 0, 2**31, 9])
    yield Example("dense", (rng.standard_normal((4, 10)).astype(dtype), step, samples), options)
    yield Example("image", (rng.standard_normal((4, 3, 3, 2)).astype(dtype), step, samples), options)
    yield Example("rate 0", (rng.standard_normal((4, 3)).astype(dtype), step, samples), {**options, "rate": 0.0})


def _bound(u: float, x: Array, step: Array, samples: Array, **options: Any) -> Dropped:
    return Dropped(10 * u * np.abs(x) / (1 - options["rate"]), np.zeros(x.shape))


def _check_rate(owner: str, rate: float) -> None:
    if not 0 <= rate < 1:
        raise InputError(f"{owner}: rate {rate!r} is not in [0, 1); it is the share of values set to zero")


def _check(x: Array, step: Array, samples: Array, *, seed: int, layer: int, rate: float) -> None:
    _check_rate("dropout", rate)
    check_floating("dropout", x=x)
    if tuple(samples.shape) != tuple(x.shape[:1]):
        raise InputError(
            f"dropout: {tuple(samples.shape)} sample indices for an input {tuple(x.shape)}; give one a row"
        )


@op(family="dropout", examples=_examples, bound=_bound, check=_check)
def dropout(x: Array, step: Array, samples: Array, *, seed: int, layer: int, rate: float) -> Dropped:
    """y = x / (1 - rate) where kept, else 0; each value is kept with probability 1 - rate (Srivastava et al. 2014).

    The mask is Philox of (seed, layer, step, sample's index in the data set, feature): the same on every library, for
    every order and size of the batch. x (m, ...); step (1,) int64; samples (m,) int64; keep bool like x.
    """
    xp = namespace(x)
    features = prod(x.shape[1:])
    keep = keep_mask(xp, seed=seed, layer=layer, step=step, samples=samples, features=features, rate=rate)
    keep = xp.reshape(keep, x.shape)
    return Dropped(_kept(x, keep, rate), keep)


def _kept(x: Array, keep: Array, rate: float) -> Array:
    return namespace(x).where(keep, stored(widened(x) / (1 - rate), x), namespace(x).zeros_like(x))


def _examples_backward(rng: Any, dtype: str) -> Iterator[Example]:
    yield Example("plain", (rng.standard_normal((4, 10)).astype(dtype), rng.random((4, 10)) < 0.5), {"rate": 0.5})


def _bound_backward(u: float, dy: Array, keep: Array, *, rate: float) -> Array:
    return 10 * u * np.abs(dy) / (1 - rate)


def _check_backward(dy: Array, keep: Array, *, rate: float) -> None:
    _check_rate("dropout_backward", rate)
    check_floating("dropout_backward", dy=dy)
    check_alike("dropout_backward", dy=dy, keep=keep)


@op(
    family="dropout",
    examples=_examples_backward,
    bound=_bound_backward,
    accumulates={"out": add},
    check=_check_backward,
)
def dropout_backward(dy: Array, keep: Array, *, rate: float) -> Array:
    """dx = dy / (1 - rate) where kept, else 0; dx may be added into a destination."""
    return _kept(dy, keep, rate)
