"""Launches of the kernels in kernels/cuda on CuPy arrays, one module for each module of `bnengine.ops`.

A launcher has the arguments of its op behind `to`, which it asks for outputs. It brings what it reads into the layout
that its kernel expects, chooses the kernel's instance, grid and vector width, and launches. CuPy is imported when an
array of it is met, never before.
"""

from ... import ops
from . import batch_norm, dense, dropout, gather, loss, pointwise, timing, update  # noqa: F401 -- they register
from ._launch import FULL, version
from .graph import replayer
from .upload import Uploads

REPLAYED_AS = "graph"

for _op in ops.REGISTRY.values():
    if _op.family == "update":
        version(_op, (*FULL, "int64"))(getattr(update, _op.name))  # counters are whole numbers

__all__ = ["REPLAYED_AS", "Uploads", "replayer", "timing"]
