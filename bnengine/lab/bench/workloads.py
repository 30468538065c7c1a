"""The networks whose training steps are timed: shapes, weights, data, and what a step computes and moves."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

from ..._typing import Array
from ...arrays.backend import Backend, get_backend
from ...data import order
from ...layers import Activation, BatchNorm, Dense
from ...network.precision import PrecisionName
from ...network.sequential import Sequential

LEARNING_RATE = 1e-3
AGREED = 20  # steps whose losses are compared
# Rounding units of the factors of products.
UNIT: dict[PrecisionName, float] = {"highest": 2.0**-24, "tf32": 2.0**-11, "bfloat16": 2.0**-8}
PRECISIONS = tuple(UNIT)


class Data(NamedTuple):
    """x (rows, inputs) float32, y (rows,) int64, and the order of the rows in each epoch, (epochs, rows) int64."""

    x: Array
    y: Array
    orders: Array


@dataclass(frozen=True)
class Workload:
    """A training: hidden layers of Dense, BatchNorm and relu; a last Dense; softmax cross-entropy; Adam.

    `widths` are those of the inputs, the hidden layers and the classes. `precisions` are in order of importance; a CPU
    runs "highest" only. `batch` divides `rows`.
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

    def network(self, backend: Backend, precision: PrecisionName = "highest") -> Sequential:
        """Build the network with its initial weights, which are the same on every backend."""
        hidden = [(Dense(*pair), BatchNorm(pair[1]), Activation("relu")) for pair in self.pairs[:-1]]
        layers = [layer for block in hidden for layer in block]
        return Sequential(*layers, Dense(*self.pairs[-1]), backend=backend, seed=0, precision=precision)

    def state(self, trained: bool = False) -> dict[str, np.ndarray]:
        """Return the initial weights by their names in `state_dict`; `trained`: with statistics as after a training."""
        state, rng = dict(self.network(get_backend("numpy")).state_dict()), np.random.default_rng(2)
        for name, array in state.items() if trained else ():
            if name.endswith("running_count"):
                array[...] = 1
            elif "running" in name:
                array[...] = rng.uniform(0.5, 1.5, array.shape)
        return state

    def blocks(self, trained: bool = False) -> list[dict[str, np.ndarray]]:
        """Return `state` in float32 as {"W", "gamma", "beta", "running_mean", ...} by hidden layer, then {"W", "b"}."""
        blocks: list[dict[str, np.ndarray]] = [{} for _ in self.pairs]
        for name, array in self.state(trained).items():
            layer, key = name.split(".")
            blocks[int(layer) // 3][key] = np.asarray(array, np.float32)  # Dense, BatchNorm, Activation
        return blocks

    def data(self, seed: int = 0, epochs: int = 2) -> Data:
        """Draw standard normal rows with classes by a noisy linear rule, which is learned within 20 steps.

        Products are in float64: another order of their sums must not change a class between processes.
        """
        rng = np.random.default_rng(seed)
        inputs, classes = self.widths[0], self.widths[-1]
        x = rng.standard_normal((self.rows, inputs), dtype=np.float32)
        rule = rng.standard_normal((inputs, classes), dtype=np.float32)
        scores = x.astype(np.float64) @ rule + rng.standard_normal((self.rows, classes), dtype=np.float32)
        orders = np.stack([order(self.rows, seed=seed, epoch=epoch) for epoch in range(epochs)])
        return Data(x, np.argmax(scores, axis=1).astype(np.int64), orders)

    def unseen_rows(self) -> Array:
        """Draw the rows to predict."""
        return np.random.default_rng(1).standard_normal((self.rows, self.widths[0]), dtype=np.float32)

    def to_json(self) -> dict[str, Any]:
        """Return what `from_json` needs, without precisions."""
        return {"name": self.name, "widths": list(self.widths), "batch": self.batch, "rows": self.rows}

    @staticmethod
    def from_json(values: Mapping[str, Any]) -> "Workload":
        """Return the workload that these JSON values describe."""
        return Workload(values["name"], tuple(values["widths"]), values["batch"], rows=values["rows"])

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
        """What a step moves if nothing stays on the chip between two kernels, with activations of `itemsize` bytes.

        Inputs: 4 passes (gather: read, write; forward; dW). A hidden activation: 13 (written by its product; 3 + 5 by
        batch norm; read by the next product and its dW; gradient written once, read twice). Logits: 5. Parameters: 11
        of 4 bytes (read forward and backward; gradients written and checked; Adam's 4 reads and 3 writes).
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
