"""The networks whose training steps are timed: shapes, data, and what a step must compute and move."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from ..._typing import Array
from ...arrays.backend import Backend
from ...data import order
from ...errors import InputError
from ...layers import Activation, BatchNorm, Dense, Layer
from ...network.precision import PrecisionName
from ...network.sequential import Sequential

LEARNING_RATE = 1e-3
AGREED = 20  # steps after which the losses are compared
PRECISIONS: tuple[PrecisionName, ...] = ("highest", "tf32", "bfloat16")
# Units of rounding of what is multiplied.
UNIT: dict[PrecisionName, float] = {"highest": 2.0**-24, "tf32": 2.0**-11, "bfloat16": 2.0**-8}


class Data(NamedTuple):
    """x (rows, inputs) float32, y (rows,) int64, and the order of the rows in each epoch, (epochs, rows) int64."""

    x: Array
    y: Array
    orders: Array


@dataclass(frozen=True)
class Workload:
    """A training: hidden layers Dense, BatchNorm, relu; a last Dense; softmax cross-entropy; Adam.

    `widths`: inputs, hidden, classes. `precisions`: in order of value; on a CPU "highest" only. `rows` of the data:
    batches of one size.
    """

    name: str
    widths: tuple[int, ...]
    batch: int
    precisions: tuple[PrecisionName, ...] = ("highest",)
    rows: int = 65536

    @property
    def batches(self) -> int:
        """Batches of an epoch."""
        return self.rows // self.batch

    @cached_property
    def pairs(self) -> tuple[tuple[int, int], ...]:
        """Inputs and outputs of each Dense."""
        return tuple(pairwise(self.widths))

    def layers(self) -> Iterator[Layer]:
        """New layers."""
        for inputs, outputs in self.pairs[:-1]:
            yield from (Dense(inputs, outputs), BatchNorm(outputs), Activation("relu"))
        yield Dense(*self.pairs[-1])

    def network(self, backend: Backend, precision: PrecisionName = "highest", seed: int = 0) -> Sequential:
        """The network with its initial weights."""
        return Sequential(*self.layers(), backend=backend, seed=seed, precision=precision)

    def data(self, seed: int = 0, epochs: int = 2) -> Data:
        """Standard normal rows, classes by a linear rule with noise: something that is learned within 20 steps."""
        rng = np.random.default_rng(seed)
        inputs, classes = self.widths[0], self.widths[-1]
        x = rng.standard_normal((self.rows, inputs), dtype=np.float32)
        rule = rng.standard_normal((inputs, classes), dtype=np.float32)
        y = np.argmax(x @ rule + rng.standard_normal((self.rows, classes), dtype=np.float32), axis=1)
        orders = np.stack([order(self.rows, seed=seed, epoch=epoch) for epoch in range(epochs)])
        return Data(x, y.astype(np.int64), orders)

    @property
    def parameters(self) -> int:
        """Weights; gamma and beta of each hidden unit; the last bias."""
        return sum(a * b for a, b in self.pairs) + 2 * sum(self.widths[1:-1]) + self.widths[-1]

    @property
    def flops(self) -> int:
        """2 m n k for each product: forward, dW, and dx of all layers but the first."""
        products = [2 * self.batch * a * b for a, b in self.pairs]
        return 3 * sum(products) - products[0]

    def bytes(self, itemsize: int = 4) -> int:
        """What a step moves if nothing stays on the chip between two kernels, activations of `itemsize` bytes.

        Inputs 4 passes (gathered: read, write; forward; dW). A hidden activation 13: written by its product, 3 + 5 by
        batch normalisation, read by the next product and by its dW, its gradient written once and read twice. Logits 5.
        Parameters 11 of 4 bytes: read forward and back, gradients written, judged, and Adam's 4 reads and 3 writes.
        """
        hidden = sum(self.widths[1:-1])
        elements = 4 * self.widths[0] + 13 * hidden + 5 * self.widths[-1]
        return self.batch * elements * itemsize + 11 * 4 * self.parameters


WORKLOADS = (
    Workload("64-100-100-10", (64, 100, 100, 10), 64),
    Workload("784-512-512-10", (784, 512, 512, 10), 256),
    Workload("784-20x128-10", (784, *[128] * 20, 10), 128),
    Workload("1024-3x2048-100", (1024, *[2048] * 3, 100), 1024, ("tf32", "bfloat16", "highest")),
)


def chosen(names: tuple[str, ...]) -> tuple[Workload, ...]:
    """The workloads of these names, all if none is given; InputError for a name that there is not."""
    known = {workload.name: workload for workload in WORKLOADS}
    for name in names:
        if name not in known:
            raise InputError(f"bench: there is no workload {name!r}; choose from {', '.join(known)}")
    return tuple(known[name] for name in names) if names else WORKLOADS


def check_precisions(names: tuple[str, ...]) -> None:
    """InputError for a precision that there is not."""
    for name in names:
        if name not in PRECISIONS:
            raise InputError(f"bench: there is no precision {name!r}; choose from {', '.join(PRECISIONS)}")
