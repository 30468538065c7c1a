"""The contracts of dropout and its gradient: examples, error bounds, checks of arguments."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from .._typing import Array
from ..errors import InputError
from ..ops import Example
from ..ops.dropout import Dropped, dropout, dropout_backward
from ..validation import number
from ._contract import contract
from .arguments import check_alike, check_floating


def _examples(rng: Any, dtype: str) -> Iterator[Example]:
    options = {"seed": 2**40 + 7, "layer": 1, "rate": 0.3}
    step, samples = np.asarray([11]), np.asarray([5, 0, 2**31, 9])
    yield Example("dense", (rng.standard_normal((4, 10)).astype(dtype), step, samples), options)
    yield Example("image", (rng.standard_normal((4, 3, 3, 2)).astype(dtype), step, samples), options)
    yield Example("rate 0", (rng.standard_normal((4, 3)).astype(dtype), step, samples), {**options, "rate": 0.0})


def _bound(u: float, x: Array, step: Array, samples: Array, **options: Any) -> Dropped:
    return Dropped(10 * u * np.abs(x) / (1 - options["rate"]), np.zeros(x.shape))


def _check_rate(where: str, rate: float) -> None:
    number(where, "rate", rate, least=0, below=1, cure="It is the share of values set to zero.")


def _check(x: Array, step: Array, samples: Array, *, seed: int, layer: int, rate: float) -> None:
    _check_rate("dropout", rate)
    check_floating("dropout", x=x)
    if tuple(samples.shape) != tuple(x.shape[:1]):
        raise InputError(
            f"dropout: samples must have one index per row of x {tuple(x.shape)}, got shape {tuple(samples.shape)}."
        )


contract(dropout, examples=_examples, bound=_bound, check=_check)


def _examples_backward(rng: Any, dtype: str) -> Iterator[Example]:
    yield Example("plain", (rng.standard_normal((4, 10)).astype(dtype), rng.random((4, 10)) < 0.5), {"rate": 0.5})


def _bound_backward(u: float, dy: Array, keep: Array, *, rate: float) -> Array:
    return 10 * u * np.abs(dy) / (1 - rate)


def _check_backward(dy: Array, keep: Array, *, rate: float) -> None:
    _check_rate("dropout_backward", rate)
    check_floating("dropout_backward", dy=dy)
    check_alike("dropout_backward", dy=dy, keep=keep)


contract(dropout_backward, examples=_examples_backward, bound=_bound_backward, check=_check_backward)
