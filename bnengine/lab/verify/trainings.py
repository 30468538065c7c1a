"""The trainings of the certificate: every variant of every optimizer for a few steps, two networks for more."""

from dataclasses import fields

from ...layers import Activation, BatchNorm, Dense, Dropout, Layer, Residual
from ...losses import SoftmaxCrossEntropy
from ...optim.optimizers import OPTIMIZERS, Adam, AdamW, Optimizer
from .steps import TrainingCase

STEPS, QUICK_STEPS = 50, 3


def _small() -> tuple[Layer, ...]:
    return Dense(64, 12), BatchNorm(12), Activation("relu"), Dense(12, 10)


def _plain() -> tuple[Layer, ...]:
    hidden = [layer for _ in range(2) for layer in (Dense(32, 32), BatchNorm(32), Activation("relu"))]
    return Dense(64, 32), *hidden[1:], Dense(32, 10)


def _residual() -> tuple[Layer, ...]:
    body = Dense(24, 24), BatchNorm(24, decay=None), Activation("gelu"), Dense(24, 24), BatchNorm(24)
    first = Dense(64, 24), BatchNorm(24), Activation("relu"), Dropout(0.2)
    return *first, Residual(*body), Activation("leaky_relu"), Dense(24, 10)


def optimizer_trainings(quick: bool) -> list[TrainingCase]:
    """Each variant of each optimizer; and one clipped, with frozen weights and statistics of each micro-batch."""
    steps = 2 if quick else 4
    optimizers = [cls(**options) for cls in OPTIMIZERS.values() for options in cls.variants]
    cases = [TrainingCase(f"optimizer {_label(o)}", _small, o, steps, (32,)) for o in optimizers]
    options = {"clip_norm": 0.5, "statistics": "per_micro_batch"}
    special = "optimizer Adam, clipped, weights of layer 0 frozen, two micro-batches"
    return [*cases, TrainingCase(special, _small, Adam(), steps, (20, 12), options, frozen=("0.W",))]


def _label(optimizer: Optimizer) -> str:
    """The class and the options that differ from the default."""
    options = {f.name: getattr(optimizer, f.name) for f in fields(optimizer)}
    defaults = vars(type(optimizer)())
    changed = [f"{name}={value!r}" for name, value in options.items() if value != defaults[name]]
    return f"{type(optimizer).__name__}({', '.join(changed)})"


def trainings(quick: bool) -> list[TrainingCase]:
    """A plain network for 50 steps; one with a residual, dropout, two micro-batches and clipping for 10."""
    steps, fewer = (QUICK_STEPS, 2) if quick else (STEPS, 10)
    plain = TrainingCase("training 64-32-32-10", _plain, Adam(), steps)
    loss, options = SoftmaxCrossEntropy(label_smoothing=0.1), {"clip_norm": 1.0}
    residual = TrainingCase("training with a residual", _residual, AdamW(), fewer, (48, 24), options, loss)
    return [plain, residual]


def narrow_training(dtype: str, quick: bool) -> TrainingCase:
    """A plain network in 16 bits, with a loss scale that keeps gradients from vanishing."""
    scale = {"loss_scale": 1024.0}
    return TrainingCase(f"training in {dtype}", _small, Adam(), 2 if quick else 10, (48,), scale, dtype=dtype)
