"""Launches of the kernels in kernels/cuda on CuPy arrays, one module for each module of `bnengine.ops`.

A launcher has the arguments of its op behind `to`, which it asks for outputs. It brings what it reads into the layout
that its kernel expects, chooses the kernel's instance, grid and vector width, and launches. CuPy is imported when an
array of it is met, never before.
"""

from . import batch_norm, dense, dropout, gather, loss, pointwise, timing, update  # noqa: F401 -- they register
from .graph import replayer
from .upload import Uploads

REPLAYED_AS = "graph"

__all__ = ["REPLAYED_AS", "Uploads", "replayer", "timing"]
