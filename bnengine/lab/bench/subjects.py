"""What a contender hands to the clock: calls to time, and an answer that shows what they compute."""

from collections.abc import Callable
from math import prod
from typing import Any, NamedTuple

import numpy as np

from .ops import OPS, Op

SAMPLED = 1 << 16  # elements of a result that are compared


class Subject(NamedTuple):
    """`run(n)` makes n calls; `answer`: losses or a sample of the result, and facts for the row, as JSON values.

    On a CPU `run` returns when the calls are done; on a GPU it may return before.
    """

    run: Callable[[int], None]
    answer: dict[str, Any]


def op_of(given: dict[str, Any], cut: bool = False) -> tuple[Op, tuple[int, ...], str]:
    """Return a case's op, shape and dtype; `cut`: parameters as a list of tensors, where the case has several."""
    if "product" in given:
        return OPS[given["product"]], (given["m"], given["n"], given["k"]), "float32"
    shape, tensors = tuple(given["shape"]), given.get("tensors", 1)
    if cut and tensors > 1:
        shape = tensors, shape[0] // tensors
    return OPS[given["op"]], shape, given.get("dtype", "float32")


def repeated(call: Callable[[], object]) -> Callable[[int], None]:
    """Return a function that makes n calls."""

    def run(n: int) -> None:
        for _ in range(n):
            call()

    return run


def sampled(result: Any) -> list[float]:
    """Return the first elements of a NumPy array, or of an array that NumPy can read."""
    return [float(value) for value in np.ravel(np.asarray(result))[:SAMPLED]]


def sampled_rows(shape: tuple[int, ...]) -> int:
    """Return how many rows of an array hold the elements that are compared."""
    return -(-SAMPLED // max(1, prod(shape[1:])))
