"""Losses: what a network is trained for, and what its outputs then mean.

A loss checks targets and weighs a step on the host, where the data come from, and calls its op on the backend.
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


def scaled(scale: Array | None) -> dict[str, Array]:
    """The option of a loss op, where there is a scale."""
    return {} if scale is None else {"scale": scale}


@dataclass(frozen=True)
class LossFunction:
    """A mean over rows of a loss of each; `weights` (m,) of the samples weigh the rows of that mean."""

    name: ClassVar[str] = ""
    task: ClassVar[str] = ""

    def targets(self, y: Any, outputs: int) -> Array:
        """Targets of one batch as a NumPy array, checked against the width of the network's output."""
        raise NotImplementedError

    def weights(self, weights: np.ndarray | None, targets: np.ndarray) -> np.ndarray | None:
        """The samples' weights (m,) as one for each row of the targets (m, ...), checked; None for none."""
        if weights is None:
            return None
        weights = np.asarray(weights)
        rows = targets.shape if targets.dtype.kind == "i" else targets.shape[:-1]
        if weights.shape != rows[:1]:
            raise InputError(
                f"{type(self).__name__}: weights have shape {weights.shape}, the targets {targets.shape}; give one "
                f"weight a sample, ({rows[0]},)"
            )
        return np.broadcast_to(weights.reshape(-1, *[1] * (len(rows) - 1)), rows)

    def total(self, targets: Array, weights: Array | None, outputs: int) -> float:
        """What a batch adds to the divisor of the mean: its rows, or their total weight, times the terms of a row."""
        raise NotImplementedError

    def constants(self, outputs: int) -> np.ndarray | None:
        """An array that every call needs, uploaded once: class weights, or None."""
        return None

    def __call__(
        self, output: Array, target: Array, weights: Array | None, constants: Array | None, divisor: Array, *,
        scale: Array | None = None, memory: Memory | None = None, into: Mapping[str, Out] | None = None,
    ) -> Loss:  # fmt: skip
        """Value, shape (1,), and gradient of a batch's part of the mean, the gradient times `scale` (1,)."""
        raise NotImplementedError

    def config(self) -> dict[str, Any]:
        """JSON values that `get_loss` makes the same loss of."""
        return {"name": self.name, **asdict(self)}


LOSSES = Registry[LossFunction]("loss")


@LOSSES.register
@dataclass(frozen=True)
class SoftmaxCrossEntropy(LossFunction):
    """-log softmax(logits)[target], averaged; targets are integers (m, ...) or probabilities (m, ..., classes).

    `label_smoothing` s replaces the target t by (1 - s) t + s/classes. `class_weights` weigh each class; with integer
    targets the mean is over the weights of the rows' classes, with probabilities over the rows.
    """

    label_smoothing: float = 0.0
    class_weights: tuple[float, ...] | None = None
    name: ClassVar[str] = "softmax_cross_entropy"
    task: ClassVar[str] = "classification"

    def __post_init__(self) -> None:
        if not 0 <= self.label_smoothing < 1:
            raise InputError(f"SoftmaxCrossEntropy: label_smoothing {self.label_smoothing!r} is not in [0, 1)")
        if self.class_weights is not None:
            weights = tuple(float(w) for w in self.class_weights)
            if not weights or not all(0 <= w < float("inf") for w in weights) or sum(weights) == 0:
                raise InputError(
                    f"SoftmaxCrossEntropy: class_weights {weights!r} must be finite, 0 or more, one above 0"
                )
            object.__setattr__(self, "class_weights", weights)

    def targets(self, y: Any, outputs: int) -> Array:
        y = np.asarray(y)
        if y.dtype.kind in "iu":
            if y.size and (y.min() < 0 or y.max() >= outputs):
                raise InputError(
                    f"SoftmaxCrossEntropy: targets from {y.min()} to {y.max()} for {outputs} outputs; they must be 0 "
                    f"to {outputs - 1}: give the last layer more outputs, or encode the labels"
                )
            return y.astype(np.int64, copy=False)
        if y.dtype.kind != "f" or y.ndim < 2 or y.shape[-1] != outputs:
            raise InputError(
                f"SoftmaxCrossEntropy: targets are {y.dtype} of shape {y.shape} for {outputs} outputs; give integer "
                "classes, or probabilities of all classes"
            )
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
                f"SoftmaxCrossEntropy: {len(self.class_weights)} class_weights for {outputs} outputs; give one each"
            )
        return np.asarray(self.class_weights)

    def __call__(
        self, output: Array, target: Array, weights: Array | None, constants: Array | None, divisor: Array, *,
        scale: Array | None = None, memory: Memory | None = None, into: Mapping[str, Out] | None = None,
    ) -> Loss:  # fmt: skip
        options = {"divisor": divisor, "label_smoothing": self.label_smoothing} | scaled(scale)
        return ops.softmax_cross_entropy(output, target, constants, weights, memory=memory, into=into, **options)


@dataclass(frozen=True)
class _ElementWise(LossFunction):
    """Losses whose targets are numbers, one for each output; the mean is over rows and outputs."""

    def targets(self, y: Any, outputs: int) -> Array:
        y = np.asarray(y)
        if y.ndim == 1 and outputs == 1:
            y = y[:, None]
        if y.dtype.kind not in "fiub" or y.ndim < 2 or y.shape[-1] != outputs:
            raise InputError(
                f"{type(self).__name__}: targets are {y.dtype} of shape {y.shape} for {outputs} outputs; give numbers "
                f"of shape (rows, {outputs})"
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

    def targets(self, y: Any, outputs: int) -> Array:
        y = super().targets(y, outputs)
        if y.size and not (y.min() >= 0 and y.max() <= 1):
            raise InputError(f"BinaryCrossEntropy: targets from {y.min()} to {y.max()}; they must be in [0, 1]")
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

    def __call__(
        self, output: Array, target: Array, weights: Array | None, constants: Array | None, divisor: Array, *,
        scale: Array | None = None, memory: Memory | None = None, into: Mapping[str, Out] | None = None,
    ) -> Loss:  # fmt: skip
        options = {"divisor": divisor} | scaled(scale)
        return ops.mean_squared_error(output, target, weights, memory=memory, into=into, **options)


def get_loss(given: str | dict[str, Any] | LossFunction) -> LossFunction:
    """The loss of a name (a key of `LOSSES`) or of a configuration, or the given object itself."""
    return given if isinstance(given, LossFunction) else LOSSES.make(given)
