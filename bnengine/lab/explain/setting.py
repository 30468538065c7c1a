"""The setting of all experiments: the data, the split and scaling of a seed, the backend, the seeds."""

from functools import cached_property
from math import ceil
from typing import Any, NamedTuple

import numpy as np

from ... import validation
from ..._typing import Array
from ...arrays.backend import Backend, get_backend
from ...data import Dataset, load, load_digits, split
from ...errors import InputError

SEEDS = 5
SHARE = 0.2  # of the rows, for validation
LARGEST = 256  # batch of an experiment


class Draw(NamedTuple):
    """Rows of a seed: `x`, `y` to train, `x_valid`, `y_valid` to validate; features float64, labels int64 codes."""

    x: Array
    y: Array
    x_valid: Array
    y_valid: Array


class Setting:
    """The data of the experiments and where they run.

    Args:
        data: None for the embedded digits (1,797 of 8 x 8), else what `bnengine.data.load` takes, with labels.
        backend: as for `get_backend`.
        seeds: their number, or the seeds themselves.
        length: of every training, as a share of its usual steps, above 0 and at most 1. The thresholds are for 1.

    Raises:
        InputError: data without enough rows or classes, or a wrong argument.
        DataError: data that cannot be read.
    """

    def __init__(
        self,
        data: Any = None,
        *,
        backend: str | Backend | None = None,
        seeds: int | tuple[int, ...] = SEEDS,
        length: float = 1.0,
    ) -> None:
        self.dataset: Dataset = load_digits() if data is None else load(data)
        self.backend = get_backend(backend)
        self.seeds = tuple(range(seeds)) if isinstance(seeds, int) else seeds
        self.length = validation.number("explain", "length", length, above=0, most=1)
        if len(self.seeds) < 2:
            raise InputError(
                f"explain: a verdict needs two or more seeds, got {seeds!r}. Give {SEEDS}, the usual number."
            )
        if self.dataset.y is None or self.dataset.y.dtype.kind == "f":
            raise InputError(f"explain: {self.dataset.name} has no labels. Give data with classes, such as digits.")
        if self.classes < 2:
            raise InputError(f"explain: {self.dataset.name} has rows of only one class. Give data with two or more.")
        if len(self.raw(self.seeds[0]).x) < LARGEST:
            raise InputError(
                f"explain: {self.dataset.name} has {len(self.dataset):,} rows, too few for batches of {LARGEST} from "
                f"{1 - SHARE:.0%} of them. Give {ceil(LARGEST / (1 - SHARE)) + 1} rows or more."
            )

    @cached_property
    def _numbers(self) -> tuple[Array, Array, int]:
        x = np.asarray(self.dataset.x, np.float64).reshape(len(self.dataset), -1)
        classes, y = np.unique(np.asarray(self.dataset.y), return_inverse=True)
        return x / max(float(np.abs(x).max()), 1e-300), y.astype(np.int64), len(classes)

    def steps(self, usual: int, *, least: int = 1) -> int:
        """The number of steps for `usual` ones in full."""
        return max(least, round(usual * self.length))

    @property
    def features(self) -> int:
        """The features of a row."""
        return int(self._numbers[0].shape[1])

    @property
    def classes(self) -> int:
        """The number of classes."""
        return self._numbers[2]

    def raw(self, seed: int) -> Draw:
        """The rows of a seed, scaled by one number to [0, 1] (pixel/16, pixel/255), not centered."""
        x, y, _ = self._numbers
        named = self.dataset.validation
        if named is None:
            train, valid = split(y, fraction=SHARE, seed=seed, stratify=True)
        else:
            train, valid = np.setdiff1d(np.arange(len(y)), named), named
        return Draw(x[train], y[train], x[valid], y[valid])

    def centered(self, seed: int) -> Draw:
        """The rows of a seed minus the training mean of each feature, divided by one standard deviation of all."""
        raw = self.raw(seed)
        mean = raw.x.mean(axis=0)
        std = float((raw.x - mean).std())
        return raw._replace(x=(raw.x - mean) / std, x_valid=(raw.x_valid - mean) / std)
