"""Batches: their rows, the order of the rows, and how arrays are indexed for them."""

from typing import NamedTuple, Protocol

import numpy as np

from .._typing import Array, DType
from ..arrays.random import Stream
from ..errors import DataError, InputError
from ..validation import choice, integer
from .checks import as_numpy, check_finite, check_inputs, check_targets, chunks, row_and_feature, text_labels, width_of
from .dataset import check_indices
from .preprocessing import Preprocessing


class Batch(NamedTuple):
    """One mini-batch as NumPy arrays.

    Attributes:
        x: (m, features), floating.
        y: (m,) int64 codes or (m, targets), floating; None if the source has no targets.
        weights: (m,), floating, or None.
        samples: (m,) int64, the samples' indices in the data set.
    """

    x: Array
    y: Array
    weights: Array | None
    samples: Array


class Source(Protocol):
    """Where batches come from: samples that `take` gathers by their positions."""

    @property
    def rows(self) -> int | None:
        """The number of samples in an epoch; None if the source has a fixed order of unknown length."""

    def take(self, positions: Array) -> Batch:
        """Return the samples at `positions` (m,), each in 0 ... rows - 1, in that order."""


def order(n: int, *, seed: int, epoch: int) -> Array:
    """Return the order of n samples in an epoch: a permutation (n,), int64, that depends only on seed and epoch."""
    return Stream(seed, "order", epoch).permutation(n)


def groups(n: int, batch_size: int, *, last: str = "join") -> list[slice]:
    """Cut n samples into batches: slices that cover 0 ... n - 1 in order.

    Args:
        n: how many samples.
        batch_size: samples a batch.
        last: what happens to a remainder of fewer samples. "join": a single sample, which has no variance, joins the
            batch before it, and a longer remainder is a batch; "drop": it is left out; "keep": it is a batch.

    Raises:
        InputError: a wrong argument, or no batch at all.
    """
    batch_size = integer("groups", "batch_size", batch_size, least=1)
    n = integer("groups", "n", n, least=1)
    choice("groups", "last", last, ("join", "drop", "keep"))
    slices = [slice(start, min(start + batch_size, n)) for start in range(0, n, batch_size)]
    remainder = n % batch_size
    if last == "drop" and remainder:
        slices.pop()
        if not slices:
            raise InputError(
                f"groups: {n} samples fill no batch of {batch_size}, and last='drop' leaves out the rest. "
                f"Take a smaller batch size or last='keep'."
            )
    if last == "join" and remainder == 1 and len(slices) > 1:
        slices[-2:] = [slice(slices[-2].start, n)]
    return slices


class Raw(NamedTuple):
    """Raw inputs in memory or in a mapped file, for a reader that casts and scales them itself.

    Attributes:
        x: (N, features...), in C order.
        rows: (m,) int64, the rows of x that the source has, in its order.
        mean, inv_scale: (features,) float64; the network's input is (x - mean) inv_scale in float64, rounded once. None
            if x is only cast.
    """

    x: Array
    rows: Array
    mean: Array | None
    inv_scale: Array | None


class ArraySource:
    """Batches of arrays or memory-mapped files; `take` reads only the rows of a batch.

    Args:
        x: (n, ...) inputs; raw with a `preprocessing`, which flattens each sample's features, else floating.
        y: (n,) or (n, targets); raw with a `preprocessing`, else int64 codes or floating; None for no targets.
        weights: (n,), how much each sample counts in the loss, 0 or more; None for 1 each.
        preprocessing: turns raw rows into the network's numbers.
        indices: the rows of this source, in this order: position p is row indices[p]; None for all rows.
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
        # A plain view of a mapped file: indexing np.memmap itself costs a Python call for every batch.
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
        """Return the samples at `positions` (m,), each in 0 ... rows - 1, in that order.

        Raises:
            DataError: a position outside the source, a value that is not finite, a label that training has not seen.
        """
        samples = self._samples(positions)
        y, weights = self._targets_and_weights(samples)
        return Batch(self._inputs(samples), y, weights, samples)

    def targets(self, positions: Array) -> tuple[Array | None, Array | None, Array]:
        """Return targets, weights and samples as `take` does, without reading the inputs."""
        samples = self._samples(positions)
        return (*self._targets_and_weights(samples), samples)

    def raw(self) -> Raw | None:
        """Return the raw inputs, for a reader that casts and scales them itself; None if they are not in C order."""
        x, preprocessing = self._x, self.preprocessing
        if not (x.flags.c_contiguous and x.flags.aligned and x.dtype.isnative):
            return None
        rows = np.arange(self.rows, dtype=np.int64) if self._indices is None else self._indices
        if preprocessing is None:
            return Raw(x, rows, None, None)
        if preprocessing.mean_low is not None:
            return None  # such a reader takes the mean in float64
        x = x.reshape(len(x), preprocessing.features)
        scaled = preprocessing.scaling != "none"
        return Raw(x, rows, *((preprocessing.mean, preprocessing.inv_scale) if scaled else (None, None)))

    def check_inputs(self) -> None:
        """Check every input, in chunks, unless its dtype alone guarantees that `take` can convert it.

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
        checked = check_indices(positions, self.rows, f"{self.name}: positions")
        return checked if self._indices is None else self._indices[checked]

    def _inputs(self, samples: Array) -> Array:
        x = self._x[samples]
        if self.preprocessing is None:
            return narrowed(x, self.dtype, self.name, samples)
        return self.preprocessing.inputs(x, self.dtype, name=self.name, rows=samples)

    def _targets_and_weights(self, samples: Array) -> tuple[Array | None, Array | None]:
        y = None if self._y is None else self._y[samples]
        if y is not None and self.preprocessing is None:
            y = ready_targets(y, self.dtype)
        elif y is not None and self.preprocessing is not None:
            y = self.preprocessing.targets(y, self.dtype, name=self.name, rows=samples)
        return y, None if self._weights is None else self._weights[samples]

    def _check_labels(self, preprocessing: Preprocessing) -> None:
        """Refuse a label that training has not seen now, not in the middle of an epoch."""
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
    """Check arrays without preprocessing: inputs must be floating, targets codes or real numbers.

    Raises:
        DataError: inputs of integers, or labels that are text.
    """
    if x.dtype.kind != "f":
        raise DataError(
            f"{name}: x must have a floating dtype, got {x.dtype}. Pass a preprocessing "
            f"(Preprocessing.fit records how integers are scaled), or x.astype('float32')."
        )
    if y is not None and y.dtype.kind not in "biuf":
        raise DataError(
            f"{name}: y must be numbers, got {y.dtype}. Pass a preprocessing, which turns labels into codes."
        )


def narrowed(x: Array, dtype: DType, name: str, rows: Array) -> Array:
    """Cast finite inputs (m, ...) to the network's dtype; errors number the rows by `rows` (m,).

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
            f"{cast.dtype}. Scale the inputs, or pass a preprocessing."
        )
    return cast


def ready_targets(y: Array, dtype: DType) -> Array:
    """Return targets without preprocessing: integers as int64 codes, real numbers (m, targets) in the dtype."""
    if y.dtype.kind != "f":
        return y.astype(np.int64)
    return y.reshape(len(y), -1).astype(dtype)


def check_weights(weights: Array, rows: int, name: str) -> Array:
    """Return sample weights (rows,) in float64, checked to be finite and 0 or more.

    Raises:
        DataError: another shape or dtype, a negative weight, NaN or infinity.
    """
    weights = as_numpy(weights, name, "weights")
    if weights.dtype.kind not in "biuf" or weights.shape != (rows,):
        raise DataError(
            f"{name}: weights must be one real number per sample, ({rows},), got {weights.dtype} {weights.shape}."
        )
    check_finite(weights, name, row_and_feature("weights"))
    if weights.size and weights.min() < 0:
        row = int(np.argmin(weights))
        raise DataError(f"{name}: weights, row {row} must not be negative, got {weights[row].item()}.")
    return weights.astype(np.float64)
