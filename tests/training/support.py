"""What tests of training share: small problems, networks and trainers, callbacks that note, bits of the outcome."""

from typing import Any

import numpy as np

import bnengine as bn
from bnengine.data import Batch
from bnengine.training import Callback, Trainer

TIMES = ("seconds", "samples_per_second")


def blobs(rows: int = 90, features: int = 6, classes: int = 3, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Classes around their own centers: x (rows, features) float32, y (rows,) int64."""
    rng = np.random.default_rng(seed)
    y = rng.integers(0, classes, rows)
    centers = 2 * rng.standard_normal((classes, features))
    return (centers[y] + rng.standard_normal((rows, features))).astype(np.float32), y


def net(inputs: int = 6, outputs: int = 3, *, dropout: float = 0.0, **options: Any) -> bn.Sequential:
    """Two dense layers with a normalization between."""
    layers = [bn.Dense(inputs, 8), bn.BatchNorm(8), bn.Activation("relu")]
    layers += [bn.Dropout(dropout)] if dropout else []
    return bn.Sequential(*layers, bn.Dense(8, outputs), **{"backend": "numpy", **options})


def trainer(network: bn.Sequential | None = None, optimizer: Any = "adam", **options: Any) -> Trainer:
    """A silent trainer."""
    return Trainer(network or net(), optimizer, **{"learning_rate": 0.01, "progress": "quiet", **options})


class Notes(Callback):
    """Every event in its order, with the place of the trainer."""

    def __init__(self) -> None:
        self.events: list[Any] = []

    def fit_begins(self, _: Trainer) -> None:
        self.events.append("fit begins")

    def epoch_begins(self, _: Trainer, epoch: int) -> None:
        self.events.append(f"epoch {epoch} begins")

    def step_ends(self, trainer: Trainer) -> None:
        self.events.append(f"step {trainer.group}")

    def epoch_ends(self, _: Trainer, record: dict[str, Any]) -> None:
        self.events.append(f"epoch {record['epoch']} ends")

    def fit_ends(self, _: Trainer) -> None:
        self.events.append("fit ends")

    def interrupted(self, trainer: Trainer) -> None:
        self.events.append(f"interrupted after step {trainer.group}")


class After(Callback):
    """Calls `action(trainer)` after that many steps of this callback's life."""

    def __init__(self, steps: int, action: Any) -> None:
        self.left, self.action = steps, action

    def step_ends(self, trainer: Trainer) -> None:
        self.left -= 1
        if self.left == 0:
            self.action(trainer)


class Rows:
    """A Source without checks: ready rows go into a step unchanged, NaN and inf included; it notes `taken`."""

    def __init__(self, x: np.ndarray, y: np.ndarray, weights: np.ndarray | None = None) -> None:
        self.x, self.y, self.weights, self.rows = x, y, weights, len(x)
        self.taken: list[list[int]] = []

    def take(self, positions: np.ndarray) -> Batch:
        self.taken.append(positions.tolist())
        weights = None if self.weights is None else self.weights[positions]
        return Batch(self.x[positions], self.y[positions], weights, positions)


def network_bits(network: bn.Sequential) -> dict[str, bytes]:
    """Parameters and running statistics, every bit."""
    return {name: array.tobytes() for name, array in network.state_dict().items()}


def outcome(trainer: Trainer) -> dict[str, Any]:
    """All that a training leaves but its times: bits of every array, the values, the records."""
    arrays, values = trainer.state()
    return {
        "network": network_bits(trainer.network),
        "arrays": {name: array.tobytes() for name, array in arrays.items()},
        "values": values,
        "history": [{k: repr(v) for k, v in record.items() if k not in TIMES} for record in trainer.history],
    }
