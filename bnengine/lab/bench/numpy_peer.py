"""NumPy as a contender: the products of its BLAS. And copies, the floor of ops whose time memory bounds."""

import os
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np

from ..._typing import Array
from .machine import Machine
from .subjects import Peer, Subject, repeated


class NumpyPeer(Peer):
    """The BLAS in NumPy's wheel."""

    def put(self, array: Array, dtype: str, shape: tuple[int, ...]) -> Array:
        return np.resize(array.astype(dtype), shape)

    def op(self, op: str, arrays: list[Array]) -> Subject:
        """Multiply into an existing array; transposed factors are views, as BLAS takes them."""
        a, b, out, _ = arrays
        left, right = a.T if op == "TN" else a, b.T if op == "NT" else b
        return self.called(lambda: np.matmul(left, right, out=out))


class Copies(Peer):
    """Copies of one half of a working set to the other, by as many threads as the others have: one pass."""

    def __init__(self, machine: Machine) -> None:
        super().__init__()
        self.machine = machine

    def subject(self, _kind: str, given: dict[str, Any], _bounded: bool) -> Subject:
        if self.machine.on_gpu:
            xp, size = self.machine.backend.xp, given["working_set"] // 8
            source, target = (xp.zeros(size, dtype=xp.float32) for _ in range(2))
            return Subject(repeated(partial(self.machine.timing.copy, source, target)), {})
        threads = int(os.environ.get("BNENGINE_NUM_THREADS", "1"))
        size = max(threads, given["working_set"] // 8)
        source, target = np.ones(size, np.float32), np.zeros(size, np.float32)
        cuts = [size * i // threads for i in range(threads + 1)]
        parts = [(target[a:b], source[a:b]) for a, b in pairwise(cuts)]
        pool = ThreadPoolExecutor(threads)

        def run(n: int) -> None:
            list(pool.map(lambda part: repeated(partial(np.copyto, *part))(n), parts))

        return Subject(run, {})
