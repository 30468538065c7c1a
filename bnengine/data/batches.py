"""Batches: which rows stand in them, in which order, and how they are gathered out of arrays."""

from typing import NamedTuple, Protocol

import numpy as np

from .._typing import Array, DType
from ..arrays.random import Stream
from ..errors import DataError, InputError
from .checks import as_numpy, check_finite, check_inputs, check_targets, chunks, row_and_feature, text_labels, width_of
from .dataset import check_indices
from .preprocessing import Preprocessing


class Batch(NamedTuple):
    """One mini-batch as NumPy arrays.

    x: (m, features), floating. y: (m,) int64 codes or (m, targets), floating; None where the source has no targets.
    weights: (m,), floating, or None. samples: (m,) int64, the samples' indices in the data set.
    """

    x: Array
    y: Array
    weights: Array | None
    samples: Array


class Source(Protocol):
    """Where batches come from: `rows` samples, gathered by position; rows None: they come in their own order only."""

    @property
    def rows(self) -> int | None:
        """How many samples an epoch has, or None where that is not known beforehand."""

    def take(self, positions: Array) -> Batch:
        """The samples at `positions` (m,), each in 0 ... rows - 1, in that order."""


def order(n: int, *, seed: int, epoch: int) -> Array:
    """The order of n samples in an epoch: a permutation (n,), int64, given by seed and epoch alone."""
    return Stream(seed, "order", epoch).permutation(n)


def groups(n: int, batch_size: int, *, last: str = "join") -> list[slice]:
    """Slices of `batch_size` that cover 0 ... n - 1 in order.

    Args:
        n: how many samples.
        batch_size: samples a batch.
        last: "join": a last batch of a single sample, which has no variance, joins the batch before it, and a longer
            remainder stays a batch of its own; "drop": a remainder is left out; "keep": it stays, even a single one.

    Raises:
        InputError: a batch size below one, an unknown `last`, or no batch at all.
    """
    if batch_size < 1:
        raise InputError(f"groups: the batch size is {batch_size}; it must be at least 1")
    if last not in ("join", "drop", "keep"):
        raise InputError(f"groups: last is {last!r}; it must be one of join, drop, keep")
    if n < 1:
        raise InputError(f"groups: there are {n} samples; a batch needs at least one")
    found = [slice(start, min(start + batch_size, n)) for start in range(0, n, batch_size)]
    remainder = n % batch_size
    if last == "drop" and remainder:
        found.pop()
        if not found:
            raise InputError(
                f"groups: {n} samples fill no batch of {batch_size}, and last='drop' leaves out the rest; "
                f"take a smaller batch size or last='keep'"
            )
    if last == "join" and remainder == 1 and len(found) > 1:
        found[-2:] = [slice(found[-2].start, n)]
    return found


class Raw(NamedTuple):
    """Inputs as they lie: x (N, features...) in C order, `rows` (m,) of it, and what makes a network's numbers of them.

    mean, inv_scale: (features,) float64, (x - mean) inv_scale in float64, rounded once; None where x is only cast.
    """

    x: Array
    rows: Array
    mean: Array | None
    inv_scale: Array | None


class ArraySource:
    """Batches gathered from arrays or memory-mapped files by position; only the rows of a batch are read.

    Args:
        x: (n, ...) inputs, raw if there is a `preprocessing` (which flattens each sample's features), else floating.
        y: (n,) or (n, targets), raw if there is a `preprocessing`, else int64 codes or floating; None: no targets.
        weights: (n,), how much each sample counts in the loss; not negative. None: all alike.
        preprocessing: turns raw rows into the network's numbers.
        indices: the rows this source hands out, in this order; position p is row indices[p]. None: all rows.
        dtype: of the network, "float32" or "float64".
        name: what messages call the data.

    Raises:
        DataError: arrays of different lengths, of a wrong dtype, or (without preprocessing) not finite.
    """

    def __init__(
        self,
        x: Array,
        y: Array | None,
        weights: Array | None = None,
        preprocessing: Preprocessing | None = None,
        indices: Array | None = None,
        dtype: DType = "float32",
        name: str = "data",
    ) -> None:
        self.name = name
        self.dtype = np.dtype(dtype)
        self.preprocessing = preprocessing
        inputs = as_numpy(x, name, "x")
        check_inputs(inputs, name)
        # A plain view of a mapped file: gathering through np.memmap itself costs a Python call for every batch.
        self._x = np.asarray(inputs)
        n = int(self._x.shape[0])
        self._y = None if y is None else np.asarray(text_labels(as_numpy(y, name, "y"), name))
        if self._y is not None:
            check_targets(self._y, n, name)
        if preprocessing is None:
            self._check_ready()
        else:
            preprocessing.check_shape(self._x, name)
        self._weights = None if weights is None else check_weights(weights, n, name).astype(self.dtype)
        self._indices = None if indices is None else check_indices(indices, n, f"{name}: indices")
        self.rows: int = n if self._indices is None else len(self._indices)
        if preprocessing is not None:
            self._check_labels(preprocessing)

    def take(self, positions: Array) -> Batch:
        """The samples at `positions` (m,), each in 0 ... rows - 1, in that order.

        Raises:
            DataError: a position outside the source, a value that is not finite, a label that training has not seen.
        """
        samples = self._samples(positions)
        y, weights = self._told(samples)
        return Batch(self._inputs(samples), y, weights, samples)

    def targets(self, positions: Array) -> tuple[Array | None, Array | None, Array]:
        """What `take` gives beside the inputs, of which nothing is read: targets, weights and samples."""
        samples = self._samples(positions)
        return (*self._told(samples), samples)

    def raw(self) -> Raw | None:
        """The inputs as they lie, for a reader that casts and scales them itself; None if they are not in C order."""
        x, preprocessing = self._x, self.preprocessing
        if not (x.flags.c_contiguous and x.flags.aligned and x.dtype.isnative):
            return None
        rows = np.arange(self.rows, dtype=np.int64) if self._indices is None else self._indices
        if preprocessing is None:
            return Raw(x, rows, None, None)
        x = x.reshape(len(x), preprocessing.features)
        scaled = preprocessing.scaling != "none"
        return Raw(x, rows, *((preprocessing.mean, preprocessing.inv_scale) if scaled else (None, None)))

    def check_inputs(self) -> None:
        """Look at every input, in chunks, where its dtype alone does not say that `take` can give it.

        Raises:
            DataError: a value that is not finite, before or after scaling.
        """
        if self._x.dtype.kind in "biu" or (
            self.preprocessing is None and self._x.dtype.itemsize <= self.dtype.itemsize
        ):
            return
        for part in chunks(self.rows, width_of(self._x)):
            self._inputs(self._samples(np.arange(part.start, part.stop)))

    def _samples(self, positions: Array) -> Array:
        found = check_indices(positions, self.rows, f"{self.name}: positions")
        return found if self._indices is None else self._indices[found]

    def _inputs(self, samples: Array) -> Array:
        x = self._x[samples]
        if self.preprocessing is None:
            return narrowed(x, self.dtype, self.name, samples)
        return self.preprocessing.inputs(x, self.dtype, name=self.name, rows=samples)

    def _told(self, samples: Array) -> tuple[Array | None, Array | None]:
        """Targets and weights."""
        y = None if self._y is None else self._y[samples]
        if y is not None and self.preprocessing is None:
            y = ready_targets(y, self.dtype)
        elif y is not None and self.preprocessing is not None:
            y = self.preprocessing.targets(y, self.dtype, name=self.name, rows=samples)
        return y, None if self._weights is None else self._weights[samples]

    def _check_labels(self, preprocessing: Preprocessing) -> None:
        """A label that training has not seen is found before the first batch, not in the middle of an epoch."""
        if self._y is None or preprocessing.classes is None:
            return
        for part in chunks(self.rows, 1):
            rows = np.arange(part.start, part.stop) if self._indices is None else self._indices[part]
            preprocessing.classes.codes(self._y[rows], self.name, rows)

    def _check_ready(self) -> None:
        check_ready(self._x, self._y, self.name)
        check_finite(self._x, self.name, row_and_feature("x"))
        if self._y is not None:
            check_finite(self._y, self.name, row_and_feature("y"))


def check_ready(x: Array, y: Array | None, name: str) -> None:
    """Arrays that no preprocessing will touch: floating inputs, and targets that are codes or real numbers.

    Raises:
        DataError: inputs of integers, or labels that are text.
    """
    if x.dtype.kind != "f":
        raise DataError(
            f"{name}: x has dtype {x.dtype}; a network takes floating inputs: give a preprocessing "
            f"(Preprocessing.fit records how integers are scaled), or x.astype('float32')"
        )
    if y is not None and y.dtype.kind not in "biuf":
        raise DataError(f"{name}: y has dtype {y.dtype}; give a preprocessing, which turns labels into codes")


def narrowed(x: Array, dtype: DType, name: str, rows: Array) -> Array:
    """Finite inputs (m, ...) in the network's dtype; `rows` (m,) are the numbers a message gives them.

    Raises:
        DataError: a value that the dtype cannot hold.
    """
    with np.errstate(over="ignore"):
        cast = x.astype(dtype)
    finite = np.isfinite(cast)
    if not finite.all():
        first = tuple(int(i) for i in np.argwhere(~finite)[0])
        raise DataError(
            f"{name}: {row_and_feature('x')((int(rows[first[0]]), *first[1:]))} is {x[first]!s}, too large for "
            f"{cast.dtype}: scale the inputs, or give a preprocessing"
        )
    return cast


def ready_targets(y: Array, dtype: DType) -> Array:
    """Targets without preprocessing: integers as int64 codes, real numbers (m, targets) in the network's dtype."""
    if y.dtype.kind != "f":
        return y.astype(np.int64)
    return y.reshape(len(y), -1).astype(dtype)


def check_weights(weights: Array, rows: int, name: str) -> Array:
    """Sample weights (rows,): finite, not negative, in float64.

    Raises:
        DataError: another shape or dtype, a negative weight, NaN or infinity.
    """
    found = as_numpy(weights, name, "weights")
    if found.dtype.kind not in "biuf" or found.shape != (rows,):
        raise DataError(
            f"{name}: weights are {found.dtype} {found.shape}; one real number a sample is needed, ({rows},)"
        )
    check_finite(found, name, row_and_feature("weights"))
    if found.size and found.min() < 0:
        row = int(np.argmin(found))
        raise DataError(f"{name}: weights, row {row} is {found[row].item()}; a weight must not be negative")
    return found.astype(np.float64)
