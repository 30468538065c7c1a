"""The contract of check_step: examples and error bounds."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from .._typing import Array
from ..arrays.dtypes import arithmetic_name
from ..ops import Example
from ..ops.check_step import LARGEST, SMALLEST, StepCheck, check_step
from ._contract import contract


def _examples(rng: Any, dtype: str) -> Iterator[Example]:
    wide = arithmetic_name(dtype)
    loss, gradients, pending = rng.random(1).astype(wide), rng.standard_normal(50).astype(wide), rng.random((1, 3, 4))
    usual = loss, gradients, pending
    yield Example("clipped", usual, {"clip": 1.0})
    yield Example("below the clip", usual, {"clip": 1e3})
    yield Example("not clipped", usual)
    yield Example("no statistics", (loss, gradients, np.zeros((1, 3, 0))))
    yield Example("scaled", (*usual, np.asarray([1024.0, 3.0, 1.0, 2.0], wide)), {"every": 2000})
    yield Example("scaled and clipped", (*usual, np.asarray([768.0, 0.0, 0.0, 0.0], wide)), {"clip": 1e-3})
    yield Example("grows", (*usual, np.asarray([64.0, 4.0, 0.0, 2.0], wide)), {"every": 5, "growth": 3.0})
    overflown = gradients.copy()
    overflown[7] = np.inf
    yield Example("cannot grow", (*usual, np.asarray([LARGEST, 4.0, 0.0, 2.0], wide)), {"every": 5})
    for scale in (SMALLEST, 64.0, 1.0, 0.5):
        state = np.asarray([scale, 4.0, 2.0, 2.0], wide)
        yield Example(f"overflown at {scale}", (loss, overflown, pending, state), {"backoff": 0.25})
    yield Example("not the scale's fault", (loss * np.inf, gradients, pending, state))


def _bound(
    u: float, loss: Array, gradients: Array, pending: Array, scaling: Array = None, **_options: Any
) -> StepCheck:
    scale = 1.0 if scaling is None else scaling[:1]
    norm = 10 * 2.0**-53 * np.abs(gradients).sum() / scale
    return StepCheck(0, norm, 10 * u / scale, None if scaling is None else 0)


contract(check_step, examples=_examples, bound=_bound)
