"""Launches of the kernels in kernels/cpu on NumPy arrays, and recorded steps as one native call."""

from .native import replayer

__all__ = ["replayer"]
