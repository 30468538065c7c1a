"""NumPy as a contender: the products of its BLAS, and copies by as many threads as the others have."""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from math import prod
from typing import Any

import numpy as np

from .cases import COPY
from .ops import normal_block
from .subjects import Subject, op_of, repeated, sampled


def make(role: str, given: dict[str, Any]) -> Subject:
    """Make what this role runs of a case."""
    if role == COPY:
        return Subject(copies(given["working_set"]), {})
    op, shape, _ = op_of(given)
    assert op.numpy is not None
    call = op.numpy(*op.arrays(shape, lambda shape, seed: np.resize(normal_block(prod(shape), seed), shape), np.copy))
    return Subject(repeated(call), {"sample": sampled(call())})


def copies(working_set: int) -> Callable[[int], None]:
    """Copy one half of `working_set` bytes to the other: read and written, they make one pass."""
    threads = int(os.environ.get("BNENGINE_NUM_THREADS", "1"))
    size = max(threads, working_set // 8)
    source, target = np.ones(size, np.float32), np.zeros(size, np.float32)
    cuts = [size * i // threads for i in range(threads + 1)]
    parts = [(target[a:b], source[a:b]) for a, b in pairwise(cuts)]
    pool = ThreadPoolExecutor(threads)

    def run(n: int) -> None:
        def copy(part: tuple[Any, Any]) -> None:
            for _ in range(n):
                np.copyto(*part)

        list(pool.map(copy, parts))

    return run
