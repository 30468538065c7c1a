"""Training: the step, the Trainer that runs epochs of steps, and callbacks."""

from .activations import Activations
from .callbacks import Callback, Checkpointing, EarlyStopping
from .scaling import LossScale
from .state import Average, Report
from .step import Step
from .trainer import Trainer

__all__ = [
    "Activations",
    "Average",
    "Callback",
    "Checkpointing",
    "EarlyStopping",
    "LossScale",
    "Report",
    "Step",
    "Trainer",
]
