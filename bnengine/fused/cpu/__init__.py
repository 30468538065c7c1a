"""Launches of the kernels in kernels/cpu on NumPy arrays, and recorded steps as one native call."""

from . import batch_norm, dense, dropout, gather, loss, pointwise, update  # noqa: F401 -- they register
from ._load import INSTRUCTIONS, available, isa
from .native import replayer

REPLAYED_AS = "one call"

__all__ = ["REPLAYED_AS", "available", "kernels", "replayer"]


def kernels() -> str:
    """Which kernels run, or why references do."""
    reason = available()
    return f"references: {reason}" if reason else f"native, {INSTRUCTIONS[isa()]}"
