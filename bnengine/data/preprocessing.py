"""Preprocessing: from raw data to a network's numbers and back, fitted on the training rows, saved with the model."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from .._typing import Array, DType
from ..errors import CheckpointError, DataError, InputError
from ..renamed import new_word
from ..validation import choice
from .checks import as_numpy, check_inputs, text_labels, width_of
from .dataset import TASKS, Dataset, check_indices, column_names
from .labels import Labels
from .statistics import feature_moments, largest, minus
from .tasks import task_of

SCALINGS = ("auto", "center", "standardize", "unit", "none")
_VERSION = 1


@dataclass(frozen=True, eq=False, repr=False)
class Preprocessing:
    """Turns raw data into a network's numbers, and predictions back into the user's labels or units.

    `Preprocessing.fit(dataset, rows)` learns it from the training rows. The network carries it, so `bnengine.predict`
    takes raw data. Inputs become `(x - mean) * inv_scale`, computed in float64 and rounded once; labels become codes
    0 ... k - 1; real targets become `(y - target_mean) / target_scale`.

    Attributes:
        task: "classification" or "regression".
        scaling: how `mean` and `inv_scale` were computed; never "auto":
            "center": subtract each feature's mean, divide all by one standard deviation (for images);
            "standardize": subtract each feature's mean, divide by its own standard deviation (for tables); a feature
            that is constant in training, but for rounding, becomes 0;
            "unit": divide integers by the largest magnitude in training;
            "none": keep the values.
        input_shape: of one raw sample; the network gets its features in one row, (m, features), in C order.
        input_dtype: of the raw training data.
        mean, inv_scale: (features,) float64. A variance is the biased one, 1/m sum (x - mean)^2.
        classes: the labels and their codes, of a classification; else None.
        target_mean, target_scale: (targets,) float64, of a regression; else None.
        target_shape: of one raw target, () or (targets,).
        parts: (rows,) uint8, the split: 1 for a training row, 2 for a validation row, 0 for a row of neither.
        columns, target: names of the features and of the target column, if the data have them.
        mean_low: (features,) float64, what `mean` lacks of the mean of whole numbers above 2^40; None for nothing.
    """

    task: str
    scaling: str
    input_shape: tuple[int, ...]
    input_dtype: str
    mean: Array
    inv_scale: Array
    classes: Labels | None
    target_mean: Array | None
    target_scale: Array | None
    target_shape: tuple[int, ...]
    parts: Array
    columns: tuple[str, ...] | None = None
    target: str | None = None
    mean_low: Array | None = None

    @classmethod
    def fit(
        cls,
        dataset: Dataset,
        indices: Array | None = None,
        *,
        valid: Array | None = None,
        scaling: str = "auto",
        task: str | None = None,
    ) -> "Preprocessing":
        """Fit the preprocessing to the training rows of a data set, in chunks.

        Args:
            dataset: raw data with targets; x may be a memory-mapped file larger than memory.
            indices: the training rows, the only ones that are read; None for every row.
            valid: the validation rows; they are only recorded, as part of the split.
            scaling: "auto", "center", "standardize", "unit" or "none", see the class; "auto" is "center" for images
                (samples of two or more axes, or bytes) and "standardize" for tables.
            task: "classification" or "regression"; None for that of the data set, see `task_of`.

        Returns:
            The preprocessing.

        Raises:
            InputError: an unknown scaling or task, or "unit" for real numbers.
            DataError: no targets, no training rows, a single class, or targets that do not suit the task.
        """
        scaling = new_word("Preprocessing.fit", "scaling", scaling)
        choice("Preprocessing.fit", "scaling", scaling, SCALINGS)
        if task is not None:
            choice("Preprocessing.fit", "task", task, TASKS)
        if dataset.y is None:
            raise DataError(f"{dataset.name}: there are no targets y. Training needs them.")
        task = task_of(dataset, task)
        every = np.arange(len(dataset), dtype=np.int64)
        rows = every if indices is None else check_indices(indices, len(dataset), f"{dataset.name}: training rows")
        if len(rows) == 0:
            raise DataError(f"{dataset.name}: there are no training rows. Preprocessing is fitted on them.")
        parts = np.zeros(len(dataset), dtype=np.uint8)
        if valid is not None:
            parts[check_indices(valid, len(dataset), f"{dataset.name}: validation rows")] = 2
        parts[rows] = 1
        scaling = _resolved(scaling, dataset.x)
        mean, inv_scale, mean_low = _scales(dataset, rows, scaling)
        y = np.asarray(dataset.y[rows])
        classes = Labels.fit(y, dataset.classes, dataset.name, rows) if task == "classification" else None
        target_mean, target_scale = (None, None) if classes is not None else _target_scales(y, rows, dataset.name)
        return cls(
            task=task,
            scaling=scaling,
            input_shape=dataset.sample_shape,
            input_dtype=str(dataset.x.dtype),
            mean=mean,
            inv_scale=inv_scale,
            classes=classes,
            target_mean=target_mean,
            target_scale=target_scale,
            target_shape=tuple(int(n) for n in dataset.y.shape[1:]),
            parts=parts,
            columns=dataset.columns,
            target=dataset.target,
            mean_low=mean_low,
        )

    def __repr__(self) -> str:
        outputs = f"{len(self.classes)} classes" if self.classes is not None else f"{self.outputs} targets"
        return f"Preprocessing({self.task}, {self.scaling}, samples {self.input_shape}, {outputs})"

    @property
    def features(self) -> int:
        """The number of features that a network gets for each sample."""
        return len(self.mean)

    @property
    def outputs(self) -> int:
        """The number of outputs that a network needs: the classes, or the targets of a row."""
        if self.classes is not None:
            return len(self.classes)
        assert self.target_mean is not None
        return len(self.target_mean)

    @property
    def train_indices(self) -> Array:
        """The training rows, ascending, int64."""
        return np.flatnonzero(self.parts == 1).astype(np.int64)

    @property
    def valid_indices(self) -> Array:
        """The validation rows, ascending, int64."""
        return np.flatnonzero(self.parts == 2).astype(np.int64)

    def check_shape(self, x: Array, name: str = "data") -> None:
        """Check that samples have the shape of the training data, or its features in one row.

        Raises:
            DataError: another dtype, shape or number of features.
        """
        check_inputs(x, name)
        if x.shape[1:] in (self.input_shape, (self.features,)):
            return
        raise DataError(
            f"{name}: samples must have the shape of the training data, {self.input_shape} ({self.features} "
            f"features), got {tuple(x.shape[1:])} ({width_of(x)} features)."
        )

    def inputs(self, x: Array, dtype: DType = "float32", *, name: str = "data", rows: Array | None = None) -> Array:
        """Convert raw samples to a network's input.

        Args:
            x: (m, ...), as the training data's samples.
            dtype: of the result.
            name: what messages call the data.
            rows: (m,), the numbers of the samples in messages; None for 0 ... m - 1.

        Returns:
            (m, features), floating.

        Raises:
            DataError: another shape than in training, or a value that is not finite, before or after scaling.
        """
        raw = as_numpy(x, name, "x")
        if len(raw):
            self.check_shape(raw, name)
        flat = raw.reshape(len(raw), self.features)
        with np.errstate(over="ignore", invalid="ignore"):
            if self.scaling == "none":
                scaled = flat.astype(dtype)
            else:
                wide = minus(flat, self.mean, self.mean_low)
                scaled = np.multiply(wide, self.inv_scale, out=wide).astype(dtype)
        finite = np.isfinite(scaled)
        if not finite.all():
            row, feature = (int(i) for i in np.argwhere(~finite)[0])
            number = row if rows is None else int(rows[row])
            raise DataError(
                f"{name}: x, row {number}, feature {self._feature_name(feature)} is {flat[row, feature]!s} and gives "
                f"{scaled[row, feature]!s} in {scaled.dtype}. Every value must be finite."
            )
        return scaled

    def targets(self, y: Array, dtype: DType = "float32", *, name: str = "data", rows: Array | None = None) -> Array:
        """Convert raw targets to int64 codes (m,) of the classes, or standardized to (m, targets) of a floating dtype.

        Args:
            y: (m,) or (m, targets).
            dtype: of standardized targets.
            name, rows: as in `inputs`.

        Raises:
            DataError: a label that training has not seen, or another number of targets.
        """
        raw = text_labels(as_numpy(y, name, "y"), name)
        if self.classes is not None:
            return self.classes.codes(raw, name, rows=rows)
        if raw.dtype.kind not in "biuf" or tuple(raw.shape[1:]) != self.target_shape:
            raise DataError(
                f"{name}: y must have real numbers, {self.target_shape} per row, as the training data, got "
                f"{raw.dtype}, {raw.shape[1:]} per row."
            )
        wide = raw.reshape(len(raw), self.outputs).astype(np.float64)
        with np.errstate(over="ignore", invalid="ignore"):
            scaled: Array = ((wide - self.target_mean) / self.target_scale).astype(dtype)
        if not np.isfinite(scaled).all():
            row = int(np.argwhere(~np.isfinite(scaled))[0, 0])
            number = row if rows is None else int(rows[row])
            raise DataError(f"{name}: y, row {number} must be a finite number, got {raw[row]!s}.")
        return scaled

    def labels(self, codes: Array) -> Array:
        """Return the user's labels for codes 0 ... k - 1 of any shape, in the labels' dtype.

        Raises:
            InputError: a regression has no labels; a code outside the classes.
        """
        if self.classes is None:
            raise InputError("Preprocessing.labels: a regression has no labels. Use values(predictions).")
        return self.classes.labels(codes)

    def values(self, predictions: Array) -> Array:
        """Convert predictions (m, targets) back to the units and the shape of the raw targets, float64.

        Raises:
            InputError: a classification has no real targets; another number of targets.
        """
        if self.target_mean is None or self.target_scale is None:
            raise InputError("Preprocessing.values: a classification has labels. Use labels(codes).")
        scaled = np.asarray(predictions, dtype=np.float64)
        if scaled.ndim != 2 or scaled.shape[1] != self.outputs:
            raise InputError(
                f"Preprocessing.values: predictions must have shape (samples, {self.outputs}), got {scaled.shape}."
            )
        restored: Array = scaled * self.target_scale + self.target_mean
        return restored.reshape(len(scaled), *self.target_shape)

    def aligned(self, dataset: Dataset) -> Dataset:
        """Return the data set with its named columns in the order of training; unchanged if either has no names.

        Raises:
            DataError: a column of training is missing, or one that training has not seen is present.
        """
        order = self._order(dataset.columns, dataset.name)
        return dataset if order is None else replace(dataset, x=dataset.x[:, order], columns=self.columns)

    def arranged(self, x: Any, name: str = "data") -> Any:
        """Return a table with named columns, such as a DataFrame, in the order of training; anything else unchanged.

        Raises:
            DataError: as in `aligned`.
        """
        order = self._order(column_names(x), name)
        return x if order is None or self.columns is None else x[list(self.columns)]

    def _order(self, columns: tuple[str, ...] | None, name: str) -> list[int] | None:
        """Return where each column of training is among these; None if either has no names, or they are the same."""
        if self.columns is None or columns is None or columns == self.columns:
            return None
        missing = [c for c in self.columns if c not in columns]
        unknown = [c for c in columns if c not in self.columns]
        if missing or unknown:
            raise DataError(
                f"{name}: the columns differ from the ones the model was trained on: "
                f"missing {missing}, unknown {unknown}. Rename or complete them."
            )
        return [columns.index(c) for c in self.columns]

    def check_same(self, other: "Preprocessing", where: str, cure: str) -> None:
        """Check that another preprocessing turns raw data into the same numbers, and these into the same classes.

        Args:
            other: of the data; this one is that of the model.
            where: what errors begin with.
            cure: the sentence that errors end with.

        Raises:
            InputError: they differ; the message says in what.
        """
        if self is other:
            return
        (mine, numbers), (theirs, others) = self.to_state(), other.to_state()
        for what in ("task", "scaling", "input_shape", "target_shape", "columns"):
            if mine[what] != theirs[what]:
                raise InputError(
                    f"{where}: {what} must be {mine[what]!r}, as of the model, got {theirs[what]!r}. {cure}"
                )
        if self.classes is not None and other.classes is not None and mine["classes"] != theirs["classes"]:
            raise InputError(
                f"{where}: the classes must be {self.classes.shown()}, as of the model, got {other.classes.shown()}. "
                f"{cure}"
            )
        for what in sorted((numbers.keys() | others.keys()) - {"parts"}):
            a, b = numbers.get(what), others.get(what)
            if a is None or b is None or not np.allclose(a, b, rtol=1e-9, atol=0.0):
                place = "" if a is None or b is None else f" of feature {int(np.argmin(np.isclose(a, b, rtol=1e-9)))}"
                raise InputError(
                    f"{where}: data must be scaled as the model's training data were, got another {what}{place}. {cure}"
                )

    def to_state(self) -> tuple[dict[str, Any], dict[str, Array]]:
        """Return the state as JSON values and as arrays; `from_state` restores the same bits."""
        values = {
            "version": _VERSION,
            "task": self.task,
            "scaling": self.scaling,
            "input_shape": list(self.input_shape),
            "input_dtype": self.input_dtype,
            "target_shape": list(self.target_shape),
            "classes": None if self.classes is None else self.classes.to_json(),
            "columns": None if self.columns is None else list(self.columns),
            "target": self.target,
        }
        arrays = {"mean": self.mean, "inv_scale": self.inv_scale, "parts": self.parts}
        if self.mean_low is not None:
            arrays["mean_low"] = self.mean_low
        if self.target_mean is not None and self.target_scale is not None:
            arrays |= {"target_mean": self.target_mean, "target_scale": self.target_scale}
        return values, arrays

    @classmethod
    def from_state(cls, values: Mapping[str, Any], arrays: Mapping[str, Array]) -> "Preprocessing":
        """Return the preprocessing that `to_state` wrote.

        Raises:
            CheckpointError: another version, or a part that is missing.
        """
        if values.get("version") != _VERSION:
            raise CheckpointError(
                f"preprocessing: the state has version {values.get('version')!r}, and this bnengine reads {_VERSION}. "
                "Update bnengine."
            )
        try:
            columns, classes = values["columns"], values["classes"]
            return cls(
                task=values["task"],
                scaling=values["scaling"],
                input_shape=tuple(values["input_shape"]),
                input_dtype=values["input_dtype"],
                mean=np.asarray(arrays["mean"], dtype=np.float64),
                inv_scale=np.asarray(arrays["inv_scale"], dtype=np.float64),
                classes=None if classes is None else Labels.from_json(classes),
                target_mean=arrays["target_mean"] if classes is None else None,
                target_scale=arrays["target_scale"] if classes is None else None,
                target_shape=tuple(values["target_shape"]),
                parts=np.asarray(arrays["parts"], dtype=np.uint8),
                columns=None if columns is None else tuple(columns),
                target=values["target"],
                mean_low=arrays.get("mean_low"),
            )
        except KeyError as missing:
            raise CheckpointError(
                f"preprocessing: the state lacks {missing}. It was not written by to_state."
            ) from None

    def _feature_name(self, feature: int) -> str:
        if self.columns is not None:
            return repr(self.columns[feature])
        place = tuple(int(i) for i in np.unravel_index(feature, self.input_shape))
        return str(place[0] if len(place) == 1 else place)


def _resolved(scaling: str, x: Array) -> str:
    """Return the scaling that "auto" means for these data."""
    if scaling == "unit" and x.dtype.kind == "f":
        raise InputError(
            f"Preprocessing: scaling 'unit' divides integers by their largest value, got x of {x.dtype}. "
            f"For real numbers use 'center' or 'standardize'."
        )
    if scaling != "auto":
        return scaling
    return "center" if x.ndim > 2 or x.dtype == np.uint8 else "standardize"


def _scales(dataset: Dataset, rows: Array, scaling: str) -> tuple[Array, Array, Array | None]:
    """Return mean, inv_scale and what the mean lacks, (features,) float64 each."""
    width = width_of(dataset.x)
    if scaling == "none":
        return np.zeros(width), np.ones(width), None
    if scaling == "unit":
        return np.zeros(width), np.full(width, 1.0 / (largest(dataset.x, rows) or 1.0)), None
    moments = feature_moments(dataset.x, rows, dataset.name)
    variance = moments.squares / moments.rows
    mean = moments.mean
    if scaling == "center":
        variance, mean = np.full(width, variance.mean()), np.full(width, np.abs(mean).min())
    std = np.sqrt(variance)
    varies = _varies(std, mean, dataset.x.dtype)
    return moments.mean, np.where(varies, 1.0 / np.where(varies, std, 1.0), 0.0), moments.low


def _varies(std: Array, mean: Array, dtype: DType) -> Array:
    """Whether values are no constant: a deviation up to two roundings of the mean in float64 is no signal.

    Narrower real numbers may be one rounding apart and still exact, such as years in float16.
    """
    eps = min(np.finfo(dtype).eps, np.finfo(np.float64).eps) if np.dtype(dtype).kind == "f" else 0.0
    return std > np.maximum(np.finfo(np.float64).tiny, 2 * float(eps) * np.abs(mean))


def _target_scales(y: Array, rows: Array, name: str) -> tuple[Array, Array]:
    """Return mean and standard deviation of real targets, (targets,) float64; the latter is 1 if it is 0."""
    if y.dtype.kind == "U":
        raise DataError(
            f"{name}: y, row {int(rows[0])} must be a real number for a regression, got {str(y.ravel()[0])!r}. "
            f"For labels train a classification."
        )
    moments = feature_moments(y.reshape(len(y), -1), np.arange(len(y)), name)
    if moments.low is not None:
        raise DataError(
            f"{name}: y must be numbers that float64 holds, in which predictions are given, got {y.dtype} such as "
            f"{y.ravel()[0]}. Subtract the least value first."
        )
    std = np.sqrt(moments.squares / moments.rows)
    return moments.mean, np.where(_varies(std, moments.mean, y.dtype), std, 1.0)
