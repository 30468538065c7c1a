"""Training: the step, the trainer around it, and what happens between steps."""

from .callbacks import Callback, Checkpointing, EarlyStopping
from .step import Average, Report, Step
from .trainer import Trainer

__all__ = ["Average", "Callback", "Checkpointing", "EarlyStopping", "Report", "Step", "Trainer"]
