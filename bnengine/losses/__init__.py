"""Losses: what a network is trained for, and what its outputs then mean.

A loss checks targets and weights on the host, where the data come from, and calls its op on the backend.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

import numpy as np

from .. import ops
from .._typing import Array
from ..errors import InputError
from ..ops import Out
from ..ops.loss import Loss
from ..registry import Registry
from ..runtime.memory import Memory
from ..validation import number
from .weighting import class_weights as class_weights


def scaled(scale: Array | None) -> dict[str, Array]:
    """Return the scale as an option of a loss op; nothing for None."""
    return {} if scale is None else {"scale": scale}


@dataclass(frozen=True)
class LossFunction:
    """A mean over rows of a loss per row; sample weights (m,) weigh the rows of that mean.

    Attributes:
        name: the key in `LOSSES` and in configurations.
        task: "classification" or "regression".
        metric: the usual metric next to the loss, a key of `METRICS`.
    """

    name: ClassVar[str] = ""
    task: ClassVar[str] = ""
    metric: ClassVar[str] = ""

    @classmethod
    def is_usual(cls, outputs: int | None) -> bool:
        """Return whether this is its task's usual loss for a network with `outputs` (None: unknown)."""
        return False

    def outputs(self, classes: int) -> int:
        """Return how many outputs a network needs for that many classes, or targets of a regression."""
        return classes

    def targets(self, y: Any, outputs: int) -> Array:
        """Return the targets of one batch as a NumPy array, checked against the width of the network's output."""
        raise NotImplementedError

    def weights(self, weights: np.ndarray | None, targets: np.ndarray) -> np.ndarray | None:
        """Return the samples' weights (m,) broadcast to the rows of the targets (m, ...); None for none."""
        if weights is None:
            return None
        weights = np.asarray(weights)
        rows = targets.shape if targets.dtype.kind == "i" else targets.shape[:-1]
        if weights.shape != rows[:1]:
            raise InputError(
                f"{type(self).__name__}: weights must be one per sample, ({rows[0]},), got shape {weights.shape} for "
                f"targets of shape {targets.shape}."
            )
        if weights.size and not (weights.min() >= 0 and weights.max() < np.inf):
            wrong = weights[~((weights >= 0) & (weights < np.inf))][0]
            raise InputError(f"{type(self).__name__}: weights must be finite and at least 0, got {wrong}.")
        return np.broadcast_to(weights.reshape(-1, *[1] * (len(rows) - 1)), rows)

    def total(self, targets: Array, weights: Array | None, outputs: int) -> float:
        """Return what a batch adds to the mean's divisor: its rows, or their total weight, times the terms per row."""
        raise NotImplementedError

    def constants(self, outputs: int) -> np.ndarray | None:
        """Return an array that every call needs, which is uploaded once: class weights, or None."""
        return None

    def __call__(
        self, output: Array, target: Array, weights: Array | None, constants: Array | None, divisor: Array, *,
        scale: Array | None = None, memory: Memory | None = None, into: Mapping[str, Out] | None = None,
    ) -> Loss:  # fmt: skip
        """Return a batch's part of the mean, (1,), and its gradient, which is multiplied by `scale`.

        Args:
            output: the network's, (m, ..., outputs).
            target: as `targets` returns it, on the backend.
            weights: as `weights` returns them, on the backend.
            constants: as `constants` returns them, on the backend.
            divisor: (1,), the total over the whole step.
            scale: (1,), the loss scale; None for 1.
            memory, into: see `Op`.
        """
        raise NotImplementedError

    def config(self) -> dict[str, Any]:
        """Return JSON values from which `get_loss` makes the same loss."""
        return {"name": self.name, **asdict(self)}


LOSSES = Registry[LossFunction]("loss")


@LOSSES.register
@dataclass(frozen=True)
class SoftmaxCrossEntropy(LossFunction):
    """-log softmax(logits)[target], averaged; targets are integers (m, ...) or probabilities (m, ..., classes).

    Args:
        label_smoothing: s in [0, 1), replaces the target t by (1 - s) t + s/classes.
        class_weights: a weight per class, or a mapping from each code 0 ... k - 1; for labels and "balanced" see
            `class_weights` of this module. With integer targets the mean is over the weights of the rows' classes,
            with probabilities over the rows.
    """

    label_smoothing: float = 0.0
    class_weights: tuple[float, ...] | None = None
    name: ClassVar[str] = "softmax_cross_entropy"
    task: ClassVar[str] = "classification"
    metric: ClassVar[str] = "accuracy"

    @classmethod
    def is_usual(cls, outputs: int | None) -> bool:
        return outputs != 1

    def __post_init__(self) -> None:
        smoothing = number("SoftmaxCrossEntropy", "label_smoothing", self.label_smoothing, least=0, below=1)
        object.__setattr__(self, "label_smoothing", smoothing)
        if self.class_weights is not None:
            weights = class_weights(self.class_weights, where="SoftmaxCrossEntropy")
            object.__setattr__(self, "class_weights", weights)

    def targets(self, y: Any, outputs: int) -> Array:
        if outputs == 1:
            raise InputError(
                "SoftmaxCrossEntropy: the network must have an output per class, got 1 output, whose softmax is always "
                "1. Take loss='binary_cross_entropy' for two classes, loss='mean_squared_error' for a regression."
            )
        y = np.asarray(y)
        if y.dtype.kind in "iu":
            if y.size and (y.min() < 0 or y.max() >= outputs):
                raise InputError(
                    f"SoftmaxCrossEntropy: targets for {outputs} outputs must be 0 to {outputs - 1}, got {y.min()} to "
                    f"{y.max()}. Give the last layer more outputs, or encode the labels."
                )
            return y.astype(np.int64, copy=False)
        if y.dtype.kind != "f" or y.ndim < 2 or y.shape[-1] != outputs:
            raise InputError(
                f"SoftmaxCrossEntropy: targets must be integer classes, or probabilities of all {outputs} classes, got "
                f"{y.dtype} of shape {y.shape}."
            )
        _check_probabilities(y)
        return y

    def total(self, targets: Array, weights: Array | None, outputs: int) -> float:
        weights = self.weights(weights, targets)
        if targets.dtype.kind == "f" or self.class_weights is None:
            classes = np.ones(targets.shape[:-1] if targets.dtype.kind == "f" else targets.shape)
        else:
            classes = np.asarray(self.class_weights)[targets]
        return float(np.sum(classes if weights is None else classes * weights))

    def constants(self, outputs: int) -> np.ndarray | None:
        if self.class_weights is None:
            return None
        if len(self.class_weights) != outputs:
            raise InputError(
                f"SoftmaxCrossEntropy: class_weights must be one per output ({outputs}), got {len(self.class_weights)}."
            )
        return np.asarray(self.class_weights)

    def __call__(
        self, output: Array, target: Array, weights: Array | None, constants: Array | None, divisor: Array, *,
        scale: Array | None = None, memory: Memory | None = None, into: Mapping[str, Out] | None = None,
    ) -> Loss:  # fmt: skip
        options = {"divisor": divisor, "label_smoothing": self.label_smoothing} | scaled(scale)
        return ops.softmax_cross_entropy(output, target, constants, weights, memory=memory, into=into, **options)


ROUNDED = 0.02  # how far a row of probabilities may be from the sum 1: they may be rounded to two digits


def _check_probabilities(y: np.ndarray) -> None:
    """Check that each row of floating targets holds the probabilities of the classes."""
    rows = y.reshape(-1, y.shape[-1])
    wrong = (rows < 0).any(-1) | ~(np.abs(np.sum(rows, axis=-1, dtype=np.float64) - 1) <= ROUNDED)
    if wrong.any():
        row = np.array2string(rows[wrong.argmax()], precision=4, threshold=6, separator=", ")
        raise InputError(
            f"SoftmaxCrossEntropy: floating targets must be probabilities, at least 0 and 1 in total, got {row}. Take "
            "loss='mean_squared_error' for a regression, loss='binary_cross_entropy' for several labels a row, or "
            "pass classes as integers."
        )


@dataclass(frozen=True)
class _ElementWise(LossFunction):
    """Losses whose targets are numbers, one per output; the mean is over rows and outputs."""

    def targets(self, y: Any, outputs: int) -> Array:
        y = np.asarray(y)
        if y.ndim == 1 and outputs == 1:
            y = y[:, None]
        if y.dtype.kind not in "fiub" or y.ndim < 2 or y.shape[-1] != outputs:
            raise InputError(
                f"{type(self).__name__}: targets must be numbers of shape (rows, {outputs}), got {y.dtype} of shape "
                f"{y.shape}."
            )
        return y.astype(np.float64, copy=False) if y.dtype.kind != "f" else y

    def total(self, targets: Array, weights: Array | None, outputs: int) -> float:
        weights = self.weights(weights, targets)
        return float(targets.size) if weights is None else float(np.sum(weights, dtype=np.float64)) * outputs


@LOSSES.register
@dataclass(frozen=True)
class BinaryCrossEntropy(_ElementWise):
    """-t log sigmoid(l) - (1 - t) log(1 - sigmoid(l)) of each logit l, averaged over rows and outputs; t in [0, 1]."""

    name: ClassVar[str] = "binary_cross_entropy"
    task: ClassVar[str] = "classification"
    metric: ClassVar[str] = "accuracy"

    @classmethod
    def is_usual(cls, outputs: int | None) -> bool:
        return outputs == 1

    def outputs(self, classes: int) -> int:
        if classes != 2:
            raise InputError(
                f"BinaryCrossEntropy: the data must have 2 classes, got {classes}. Take softmax_cross_entropy."
            )
        return 1

    def targets(self, y: Any, outputs: int) -> Array:
        y = super().targets(y, outputs)
        if y.size and not (y.min() >= 0 and y.max() <= 1):
            raise InputError(
                f"BinaryCrossEntropy: targets must be in [0, 1], got {y.min()} to {y.max()}. Encode the labels."
            )
        return y

    def __call__(
        self, output: Array, target: Array, weights: Array | None, constants: Array | None, divisor: Array, *,
        scale: Array | None = None, memory: Memory | None = None, into: Mapping[str, Out] | None = None,
    ) -> Loss:  # fmt: skip
        options = {"divisor": divisor} | scaled(scale)
        return ops.binary_cross_entropy(output, target, weights, memory=memory, into=into, **options)


@LOSSES.register
@dataclass(frozen=True)
class MeanSquaredError(_ElementWise):
    """(prediction - target)^2, averaged over rows and outputs."""

    name: ClassVar[str] = "mean_squared_error"
    task: ClassVar[str] = "regression"
    metric: ClassVar[str] = "mean_absolute_error"

    @classmethod
    def is_usual(cls, outputs: int | None) -> bool:
        return True

    def __call__(
        self, output: Array, target: Array, weights: Array | None, constants: Array | None, divisor: Array, *,
        scale: Array | None = None, memory: Memory | None = None, into: Mapping[str, Out] | None = None,
    ) -> Loss:  # fmt: skip
        options = {"divisor": divisor} | scaled(scale)
        return ops.mean_squared_error(output, target, weights, memory=memory, into=into, **options)


def usual_loss(task: str, outputs: int | None = None) -> LossFunction:
    """Return the usual loss of a task, "classification" or "regression".

    Args:
        task: what the network is trained for.
        outputs: the network's outputs; None for as many as there are classes.
    """
    return next(loss() for loss in LOSSES.values() if loss.task == task and loss.is_usual(outputs))


def get_loss(loss: str | dict[str, Any] | LossFunction) -> LossFunction:
    """Return the loss of a name in `LOSSES` or of a configuration; a loss is returned unchanged."""
    return loss if isinstance(loss, LossFunction) else LOSSES.make(loss)
