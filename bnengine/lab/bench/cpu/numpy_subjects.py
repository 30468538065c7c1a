"""NumPy as a contender: its BLAS's products, and copies in as many threads as there are for everybody."""

import os
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from .cases import COPY
from .inputs import sampled
from .own_subjects import ABOUT, factors, repeated
from .worker import Subject


def make(role: str, _kind: str, given: dict[str, Any], folder: Path) -> Subject:
    """What this role runs of a case."""
    return copies(given["working_set"]) if role == COPY else product(role, given, folder)


def product(role: str, given: dict[str, Any], folder: Path) -> Subject:
    """np.matmul into an array that there is; transposed factors are views, as BLAS takes them."""
    a, b, c = factors(given)
    left = a.T if given["product"] == "TN" else a
    right = b.T if given["product"] == "NT" else b

    def call() -> None:
        np.matmul(left, right, out=c)

    call()
    return Subject(repeated(call), {**sampled(c, folder, role), **ABOUT})


def copies(working_set: int) -> Subject:
    """One half of so many bytes into the other, each thread its part: read and written, they make one pass."""
    threads = int(os.environ.get("BNENGINE_NUM_THREADS", "1"))
    size = max(threads, working_set // 8)
    source, target = np.ones(size, np.float32), np.zeros(size, np.float32)
    cuts = [size * i // threads for i in range(threads + 1)]
    parts = [(target[a:b], source[a:b]) for a, b in pairwise(cuts)]
    pool = ThreadPoolExecutor(threads)

    def run(n: int) -> None:
        def one(part: tuple[Any, Any]) -> None:
            for _ in range(n):
                np.copyto(*part)

        list(pool.map(one, parts))

    return Subject(run, {})
