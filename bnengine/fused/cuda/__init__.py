"""Launches of the kernels in kernels/cuda on CuPy arrays, one module for each module of `bnengine.ops`.

`fused._arguments` prepares the arguments of each call. A launcher chooses the instance of its kernel, the grid and the
vector width, and launches. bnengine imports CuPy when it meets an array of CuPy, never before.
"""

from . import batch_norm, dense, dropout, gather, loss, pointwise, timing, update  # noqa: F401 -- they register
from .graph import replayer
from .upload import Uploads

REPLAYED_AS = "graph"

__all__ = ["REPLAYED_AS", "Uploads", "kernels", "replayer", "timing"]


def kernels() -> str:
    """Which kernels run."""
    return "CUDA"
