"""What all experiments share: the data, the split and the scaling of a seed, the backend, the seeds."""

from functools import cached_property
from math import ceil
from typing import Any, NamedTuple

import numpy as np

from ..._typing import Array
from ...arrays.backend import Backend, get_backend
from ...data import Dataset, load, load_digits, split
from ...errors import InputError

SEEDS = 5
SHARE = 0.2  # of the rows, which validate
LARGEST = 256  # batch that an experiment takes


class Draw(NamedTuple):
    """Rows of a seed: `x`, `y` to train, `x_valid`, `y_valid` to validate; features float64, labels int64 codes."""

    x: Array
    y: Array
    x_valid: Array
    y_valid: Array


class Setting:
    """The data of the experiments and where they run.

    `data` None: the embedded digits (1,797 of 8 x 8), else what `bnengine.data.load` takes, with labels. `backend` as
    for `get_backend`. `seeds`: how many, or which. `length`, above 0 and at most 1: of every training, as a share of
    its usual steps; the thresholds are made for 1. Raises InputError, DataError.
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
        self.length = float(length)
        if not 0 < self.length <= 1:
            raise InputError(f"explain: length {length!r} is no share of the usual steps; give a number in (0, 1]")
        if len(self.seeds) < 2:
            raise InputError(f"explain: seeds {seeds!r}; a verdict needs the spread over two or more, and 5 are usual")
        if self.dataset.y is None or self.dataset.y.dtype.kind == "f":
            raise InputError(f"explain: {self.dataset.name} has no labels; give data with classes, such as digits")
        if self.classes < 2:
            raise InputError(f"explain: {self.dataset.name} has rows of one class alone; give data with two or more")
        if len(self.raw(self.seeds[0]).x) < LARGEST:
            raise InputError(
                f"explain: {self.dataset.name} has {len(self.dataset):,} rows, and batches of {LARGEST} are taken of "
                f"{1 - SHARE:.0%} of them; give {ceil(LARGEST / (1 - SHARE)) + 1} rows or more"
            )

    @cached_property
    def _numbers(self) -> tuple[Array, Array, int]:
        x = np.asarray(self.dataset.x, np.float64).reshape(len(self.dataset), -1)
        classes, y = np.unique(np.asarray(self.dataset.y), return_inverse=True)
        return x / max(float(np.abs(x).max()), 1e-300), y.astype(np.int64), len(classes)

    def steps(self, usual: int, *, least: int = 1) -> int:
        """How many to take where `usual` are taken in full."""
        return max(least, round(usual * self.length))

    @property
    def features(self) -> int:
        """The numbers of a row."""
        return int(self._numbers[0].shape[1])

    @property
    def classes(self) -> int:
        """How many labels there are."""
        return self._numbers[2]

    def raw(self, seed: int) -> Draw:
        """The rows of a seed, scaled by one number to [0, 1] (pixel/16, pixel/255): not centred."""
        x, y, _ = self._numbers
        given = self.dataset.validation
        if given is None:
            train, valid = split(y, fraction=SHARE, seed=seed, stratify=True)
        else:
            train, valid = np.setdiff1d(np.arange(len(y)), given), given
        return Draw(x[train], y[train], x[valid], y[valid])

    def centred(self, seed: int) -> Draw:
        """The rows of a seed less the training rows' mean of each feature, over one standard deviation of all."""
        raw = self.raw(seed)
        mean = raw.x.mean(axis=0)
        std = float((raw.x - mean).std())
        return raw._replace(x=(raw.x - mean) / std, x_valid=(raw.x_valid - mean) / std)
